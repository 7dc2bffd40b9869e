"""CLIP and AIMA in Flax NNX; they know nothing of data, training or files."""

from aima_jax.models.aima import AIMA
from aima_jax.models.clip import CLIP, END_OF_TEXT, text_mask
from aima_jax.models.config import (
    PRESETS,
    AIMAConfig,
    CLIPConfig,
    ResNetConfig,
    TextConfig,
    ViTConfig,
)
from aima_jax.models.positions import resize_positions

__all__ = [
    "AIMA",
    "CLIP",
    "END_OF_TEXT",
    "PRESETS",
    "AIMAConfig",
    "CLIPConfig",
    "ResNetConfig",
    "TextConfig",
    "ViTConfig",
    "resize_positions",
    "text_mask",
]
