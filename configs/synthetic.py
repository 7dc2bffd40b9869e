"""Rendered pedestrians: needs no download, and trains from scratch in minutes on a CPU."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.dataset = "synthetic_pedestrians"
    common.train_small_from_scratch(config)
    config.epochs = 6
    return config
