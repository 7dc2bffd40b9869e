"""Training: `train(config, workdir)`."""

from aima_jax.training.loop import Interrupted, replay, train

__all__ = ["Interrupted", "replay", "train"]
