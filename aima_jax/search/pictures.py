"""Pictures as people have them: files, PIL images or arrays."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from aima_jax.data.decode import FORMATS, MAX_PIXELS

Item = TypeVar("Item")
Result = TypeVar("Result")
Picture = Image.Image | UInt8[np.ndarray, "height width 3"] | str | os.PathLike[str]


def open_picture(picture: Picture, *, name: str = "the picture") -> Image.Image:
    """Opens a JPEG or PNG file, or takes a picture as it is; turns it as its EXIF data says.

    Args:
        picture: a path, a PIL image, or an array of RGB pixels.
        name: of a picture that is no file, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, is damaged, or has more than `MAX_PIXELS` pixels; names it.
    """
    if isinstance(picture, np.ndarray):
        shape, dtype = picture.shape, picture.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not picture.size:
            raise ValueError(
                f"{name} is an array {dtype}{list(shape)}; expected uint8[height, width, 3]"
            )
        return Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        return _upright(picture, name)
    if not isinstance(picture, str | os.PathLike):
        raise ValueError(f"{name} is {picture!r}; expected a PIL image, an array or a path")
    try:
        file = Image.open(picture, formats=FORMATS)
    except FileNotFoundError:
        raise FileNotFoundError(f"no picture {picture}") from None
    except Exception as error:  # Pillow reports damage by whatever its readers happen to raise
        raise ValueError(f"{picture} is no readable JPEG or PNG picture ({error})") from error
    with file:
        return _upright(file, str(picture))


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 256
) -> Iterator[Result]:
    """Yields `function(item)` of each item in order; threads are at most `ahead` items ahead."""
    remaining = iter(items)
    with ThreadPoolExecutor() as pool:
        while block := list(islice(remaining, ahead)):
            yield from pool.map(function, block)


def _upright(picture: Image.Image, name: str) -> Image.Image:
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {picture.width}×{picture.height} pixels; expected {MAX_PIXELS} at most"
        )
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded ({error})") from error
