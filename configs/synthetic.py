"""Rendered pedestrians: needs no download, and trains from scratch in minutes on a CPU."""

from configs import common


def get_config():
    config = common.get_config()
    config.dataset = "synthetic_pedestrians"
    config.weights = ""
    config.model.variant = "tiny"
    config.image_size = (96, 48)
    config.batch_size = 64
    config.epochs = 20
    config.augment.pad = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_epochs = 1.0
    return config
