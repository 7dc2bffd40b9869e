"""Pixels as an image encoder expects them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from aima_jax.models.config import Channels


def normalize(
    images: UInt8[Array, "*batch height width 3"], mean: Channels, std: Channels
) -> Float[Array, "*batch height width 3"]:
    """Turn pixels of 0…255 into float32 values: of 0…1, less `mean`, divided by `std`.

    Args:
        images: pictures.
        mean, std: `pixel_mean` and `pixel_std` of the image tower's config.
    """
    offset, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return images.astype(jnp.float32) * (1 / (255 * scale)) - offset / scale
