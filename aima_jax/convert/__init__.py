"""Weights in and out: CLIP of Hugging Face and OpenAI, checkpoints of IRRA, whole AIMA models."""

from aima_jax.convert.aima import ExportedAIMA, load_aima, save_aima
from aima_jax.convert.clip import load_clip
from aima_jax.convert.huggingface import save_clip
from aima_jax.convert.irra import load_irra
from aima_jax.convert.pretrained import load_pretrained

__all__ = [
    "ExportedAIMA",
    "load_aima",
    "load_clip",
    "load_irra",
    "load_pretrained",
    "save_aima",
    "save_clip",
]
