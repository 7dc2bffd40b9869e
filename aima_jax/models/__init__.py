"""CLIP and AIMA in Flax NNX, independent of data, training and files."""

from aima_jax.models.aima import AIMA
from aima_jax.models.clip import CLIP, text_mask
from aima_jax.models.config import (
    PRESETS,
    AIMAConfig,
    CLIPConfig,
    ResNetConfig,
    TextConfig,
    ViTConfig,
)
from aima_jax.models.layers import resize_positions

__all__ = [
    "AIMA",
    "CLIP",
    "PRESETS",
    "AIMAConfig",
    "CLIPConfig",
    "ResNetConfig",
    "TextConfig",
    "ViTConfig",
    "resize_positions",
    "text_mask",
]
