"""CLIP's pixel statistics: what the encoders expect of their pictures."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

# Mean and standard deviation of each colour channel, of values in 0…1 (OpenAI CLIP).
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def normalize(images: UInt8[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
    """Turns pixels of 0…255 into the float32 values that the image encoder expects."""
    return images.astype(jnp.float32) * (1 / (255 * STD)) - MEAN / STD
