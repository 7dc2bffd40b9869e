"""Rendered pedestrians: needs no download, and trains from scratch in minutes on a CPU."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.dataset = "synthetic_pedestrians"
    common.train_small_from_scratch(config)
    config.epochs = 6
    config.eval_every_epochs = 2.0
    return config
