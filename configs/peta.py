"""PETA on the person-search split (SAL's), every test category unseen in training."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.dataset = "peta/sal"
    config.protocols = ("standard", "sal", "asmr")
    return config
