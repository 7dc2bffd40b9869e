"""Weights in and out: CLIP in every common layout, checkpoints of IRRA, whole AIMA models."""

from aima_jax.convert.aima import ExportedAIMA, load_aima, save_aima
from aima_jax.convert.huggingface import save_clip
from aima_jax.convert.load import load_clip, load_irra, load_pretrained

__all__ = [
    "ExportedAIMA",
    "load_aima",
    "load_clip",
    "load_irra",
    "load_pretrained",
    "save_aima",
    "save_clip",
]
