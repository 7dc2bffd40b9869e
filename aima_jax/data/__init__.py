"""Prepared datasets as batches: labels, categories, decoded pictures, in a reproducible order."""

from aima_jax.data.categories import categories, hold_out_categories
from aima_jax.data.dataset import Split, has_split, load_split
from aima_jax.data.pipeline import Batch, TrainBatches, decode_all, evaluation_batches

__all__ = [
    "Batch",
    "Split",
    "TrainBatches",
    "categories",
    "decode_all",
    "evaluation_batches",
    "has_split",
    "hold_out_categories",
    "load_split",
]
