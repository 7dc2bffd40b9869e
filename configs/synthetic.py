"""Rendered pedestrians: needs no download, and trains from scratch in minutes on a CPU."""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.dataset = "synthetic_pedestrians"
    common.train_small_from_scratch(config)
    config.epochs = 8
    config.eval_every_epochs = 2.0
    # Chosen by validation: see docs/results.md. [ours]
    config.loss.temperature = 0.05
    config.loss.sdm.weight = 0.25
    config.loss.attribute_iou.weight = 4.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.beta2 = 0.98
    return config
