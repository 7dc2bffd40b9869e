"""Prepared datasets as batches: labels, categories, decoded pictures, in a reproducible order."""

from aima_jax.data.dataset import Dataset, Split, categories, hold_out_categories, open_dataset
from aima_jax.data.pipeline import Batch, TrainBatches, decode_all, evaluation_batches
from aima_jax.data.prepared import prepared_folder

__all__ = [
    "Batch",
    "Dataset",
    "Split",
    "TrainBatches",
    "categories",
    "decode_all",
    "evaluation_batches",
    "hold_out_categories",
    "open_dataset",
    "prepared_folder",
]
