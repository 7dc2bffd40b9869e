"""Training: `train(config, workdir)`."""

from aima_jax.training.failure import replay
from aima_jax.training.interruption import Interrupted
from aima_jax.training.loop import train

__all__ = ["Interrupted", "replay", "train"]
