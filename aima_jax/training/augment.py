"""Random flip, crop and erasing of training pictures."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from aima_jax.models.config import Channels
from aima_jax.models.layers import normalize

ASPECT = (0.3, 3.3)  # height over width of the erased rectangle
ATTEMPTS = 10  # to find a rectangle that fits


def augment(
    key: PRNGKeyArray,
    images: UInt8[Array, "batch height width 3"],
    *,
    mean: Channels,
    std: Channels,
    flip: float,
    pad: int,
    erase: float,
    erase_area: tuple[float, float],
) -> Float[Array, "batch height width 3"]:
    """Flip, crop, normalise and erase: uint8 pictures in, float32 encoder inputs out.

    A picture is mirrored with probability `flip`, shifted by up to `pad` pixels in each direction
    with black padding, and with probability `erase` loses a rectangle of `erase_area` (smallest and
    largest share of the picture). `mean` and `std` are the image tower's. The augmentation of row i
    depends on `key` and i alone.

    Order and erasing follow IRRA, i.e. torchvision: aspect ratios log-uniform in 0.3…3.3, and the
    fill value is the pixel mean, but after normalisation, where it does not belong: with CLIP's
    statistics it gives a grey lighter than the mean.

    Raises:
        ValueError: the pictures are not uint8[batch, height, width, 3].
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise ValueError(
            f"images are {images.dtype}{list(images.shape)}; "
            "expected uint8[batch, height, width, 3]"
        )

    def augment_one(row: Array, image: Array) -> Array:
        flip_key, crop_key, erase_key, area_key = jax.random.split(jax.random.fold_in(key, row), 4)
        image = jnp.where(jax.random.bernoulli(flip_key, flip), image[:, ::-1], image)
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        image = jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
        image = normalize(image, mean, std)
        height, width, _ = image.shape
        erased = _random_rectangle(area_key, (height, width), erase_area)
        erased &= jax.random.bernoulli(erase_key, erase)
        return jnp.where(erased[..., None], jnp.array(mean), image)

    return jax.vmap(augment_one)(jnp.arange(len(images)), images)


def _random_rectangle(
    key: PRNGKeyArray, shape: tuple[int, int], area: tuple[float, float]
) -> Bool[Array, "height width"]:
    """A mask of a random rectangle inside the picture, its share of the picture drawn from `area`.

    As in torchvision, shapes are drawn until one fits; after ten failures nothing is erased.
    """
    height, width = shape
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    share = jax.random.uniform(area_key, (ATTEMPTS,), minval=area[0], maxval=area[1])
    pixels = height * width * share
    low, high = jnp.log(jnp.array(ASPECT))
    aspect = jnp.exp(jax.random.uniform(aspect_key, (ATTEMPTS,), minval=low, maxval=high))
    rows, columns = jnp.round(jnp.sqrt(pixels * aspect)), jnp.round(jnp.sqrt(pixels / aspect))
    fits = (rows < height) & (columns < width)
    first = jnp.argmax(fits)
    size = jnp.where(fits[first], jnp.array([rows[first], columns[first]]), 0).astype(jnp.int32)
    start = jax.random.randint(place_key, (2,), 0, jnp.array(shape) - size + 1)

    def within(axis: int) -> Array:
        index = jnp.arange(shape[axis])
        return (index >= start[axis]) & (index < start[axis] + size[axis])

    return within(0)[:, None] & within(1)[None, :]
