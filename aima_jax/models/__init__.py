"""CLIP and AIMA in Flax NNX; they know nothing of data, training or files."""

from aima_jax.models.aima import AIMA, AIMAConfig
from aima_jax.models.clip import (
    CLIP,
    END_OF_TEXT,
    PRESETS,
    CLIPConfig,
    TextConfig,
    ViTConfig,
    text_mask,
)
from aima_jax.models.positions import resize_positions
from aima_jax.models.resnet import ResNetConfig

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
