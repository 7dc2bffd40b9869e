"""Position tables of an image tower, moved from one grid of tokens to another."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Resize = Literal["bilinear", "bicubic"]


def resize_positions(
    table: Float[Array, "tokens dim"],
    old: tuple[int, int],
    new: tuple[int, int],
    method: Resize = "bilinear",
) -> Float[Array, "tokens dim"]:
    """Resizes the grid of a position table as PyTorch's `interpolate` does (align_corners false).

    Args:
        table: first the class position, which is kept, then those of the grid row by row.
        old, new: rows and columns.
        method: "bilinear", or "bicubic" with PyTorch's coefficient of -0.75; without antialiasing.
    """
    if old == new:
        return table
    grid = table[1:].reshape(*old, -1)
    vertical = interpolation_matrix(old[0], new[0], method)
    horizontal = interpolation_matrix(old[1], new[1], method)
    resized = jnp.einsum("ri,ijd,cj->rcd", vertical, grid, horizontal, precision="highest")
    return jnp.concatenate([table[:1], resized.reshape(-1, table.shape[1])])


def interpolation_matrix(old: int, new: int, method: Resize) -> Float[np.ndarray, "new old"]:
    """Weight of each old point in each new one, along one axis."""
    # Pixel centres are aligned: new i lies at (i + 1/2)·old/new - 1/2.
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    if method == "bilinear":
        centres = np.clip(centres, 0, None)
        offsets = np.arange(2)
    else:
        offsets = np.arange(-1, 3)
    points = np.floor(centres).astype(int)[:, None] + offsets
    distance = np.abs(centres[:, None] - points)
    weights = 1 - distance if method == "bilinear" else _cubic(distance)
    matrix = np.zeros((new, old))
    # Points over the edge stand for the edge itself.
    rows = np.repeat(np.arange(new), len(offsets))
    np.add.at(matrix, (rows, np.clip(points, 0, old - 1).ravel()), weights.ravel())
    return matrix.astype(np.float32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution (Keys 1981) with the coefficient -0.75 that PyTorch takes."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
