"""Person categories: the distinct attribute vectors of a split."""

import numpy as np
from jaxtyping import Int32, UInt8

from aima_jax.data.dataset import Split


def categories(
    attributes: UInt8[np.ndarray, "images attributes"],
) -> tuple[UInt8[np.ndarray, "category attributes"], Int32[np.ndarray, "images"]]:
    """Returns the distinct vectors in lexicographic order, and the category of each image."""
    table, category = np.unique(attributes, axis=0, return_inverse=True)
    return table, category.reshape(-1).astype(np.int32)


def hold_out_categories(split: Split, count: int, *, seed: int) -> tuple[Split, Split]:
    """Splits off all pictures of `count` random categories: returns the others, and these.

    Raises:
        ValueError: there are not more than `count` categories.
    """
    table, category = categories(split.attributes)
    if not 0 < count < len(table):
        raise ValueError(
            f"cannot hold out {count} of the {len(table)} categories of {split.dataset} "
            f"{split.split}; expected 1 to {len(table) - 1}"
        )
    held = np.random.default_rng(seed).choice(len(table), count, replace=False)
    is_held = np.isin(category, held)
    return split.take(np.flatnonzero(~is_held)), split.take(np.flatnonzero(is_held))
