"""Market-1501 Attribute: the full recipe, and all three protocols published for it."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.dataset = "market1501_attribute"
    config.protocols = ("standard", "sal", "asmr")
    return config
