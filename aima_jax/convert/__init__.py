"""Import and export of weights: CLIP in every common layout, IRRA checkpoints, AIMA models."""

from aima_jax.convert.export import exported_words, load_aima, restore, save_aima
from aima_jax.convert.huggingface import save_clip
from aima_jax.convert.load import load_clip, load_irra, load_pretrained

__all__ = [
    "exported_words",
    "load_aima",
    "load_clip",
    "load_irra",
    "load_pretrained",
    "restore",
    "save_aima",
    "save_clip",
]
