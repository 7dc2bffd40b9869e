"""The one way to open a picture, so that builders, training and search get the same pixels.

A picture is oriented by its EXIF data, converted to RGB, and resized by Pillow's antialiasing
bilinear filter, which torchvision's Resize, and so IRRA, uses.
"""

import collections
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from aima_jax.files import is_clutter

# Crops of people are a thousand times smaller; a larger picture is damaged or an attack.
MAX_PIXELS = 2**24
# For pictures in a dataset's records, and for pictures in users' folders.
RECORD_FORMATS = ("JPEG", "PNG")
FORMATS = (*RECORD_FORMATS, "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# By EXIF orientation: the transposition that turns a picture upright, and its effect on the axes.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_AXES, _FLIPS_X, _FLIPS_Y = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

Pixels = UInt8[np.ndarray, "_height _width 3"]
Source = bytes | str | os.PathLike[str] | Image.Image | Pixels
_Box = tuple[int | float, int | float, int | float, int | float]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def is_picture_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a picture by its name, and not system clutter beside pictures."""
    return pathlib.PurePath(path).suffix.lower() in SUFFIXES and not is_clutter(path)


def open_picture(
    source: Source, *, name: str = "the picture", formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Decode a picture completely, upright and in RGB.

    Args:
        source: the bytes of a file, its path, a PIL image, or an array of RGB pixels.
        name: for messages about a picture without a path.
        formats: accepted formats, as Pillow names them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a picture, is damaged, or has more than `MAX_PIXELS` pixels; the
            message names it.
    """
    return _open(source, name, formats)[0]


def read_pixels(
    source: Source,
    image_size: tuple[int, int],
    *,
    name: str = "the picture",
    formats: tuple[str, ...] = FORMATS,
    out: Pixels | None = None,
) -> Pixels:
    """Open a picture and resize it to `image_size`, height and width; into `out` if given.

    Raises:
        FileNotFoundError, ValueError: as `open_picture`.
    """
    picture, box = _open(source, name, formats, image_size)
    return resize(picture, image_size, box=box, out=out)


def resize(
    picture: Image.Image,
    image_size: tuple[int, int],
    *,
    box: _Box | None = None,
    out: Pixels | None = None,
) -> Pixels:
    """Resize an RGB picture, or the part of it in `box`, to `image_size`."""
    height, width = image_size
    resized = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if out is None:
        return np.array(resized)
    out[:] = resized
    return out


def in_threads(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    threads: int = 0,
    ahead: int = 64,
) -> Iterator[_Result]:
    """Yield `function(item)` for each item in order, computed at most `ahead` items ahead.

    Args:
        function: its exceptions are raised by the iterator.
        items: consumed as needed, by the iterating thread.
        threads: 0: one per core, at most 8, since decoding partly holds the GIL.
        ahead: items computed while the first of them is awaited.
    """
    workers = threads or min(os.cpu_count() or 1, 8)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="in_threads")
    pending: collections.deque[Future[_Result]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _open(
    source: Source, name: str, formats: tuple[str, ...], fit: tuple[int, int] | None = None
) -> tuple[Image.Image, _Box | None]:
    """An upright RGB picture and, if it is large and to be fitted, the box that it fills."""
    if isinstance(source, np.ndarray):
        shape, dtype = source.shape, source.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not source.size:
            raise ValueError(
                f"{name} is an array {dtype}{list(shape)}; expected uint8[height, width, 3]"
            )
        return Image.fromarray(source), None
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
    elif not isinstance(source, bytes | Image.Image):
        raise ValueError(f"{name} is {source!r}; expected a PIL image, an array or a path")
    try:
        if isinstance(source, Image.Image):
            return _upright(source, None)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=formats) as picture:
            return _upright(picture, fit)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such picture") from None
    # On damage, Pillow's decoders raise exceptions of many types.
    except Exception as error:
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):
            size = len(source) if isinstance(source, bytes) else os.path.getsize(name)
            reason = "unknown format" if size else "the file is empty"
        raise ValueError(
            f"{name}: cannot be decoded ({reason}); expected a {' or '.join(formats)} picture of "
            f"at most {MAX_PIXELS} pixels"
        ) from error


def _upright(picture: Image.Image, fit: tuple[int, int] | None) -> tuple[Image.Image, _Box | None]:
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"it has {picture.width}×{picture.height} pixels")
    if picture.format not in ("JPEG", "MPO"):
        picture.load()  # EXIF data may follow the pixels, and a TIFF is rotated while loading
    orientation, box = _orientation(picture), None
    if fit is not None:
        height, width = reversed(fit) if orientation in _SWAPS_AXES else fit
        # The JPEG decoder halves a picture at far less cost than the filter. With a factor of two
        # left to the filter, the result is nearly the same.
        if drafted := picture.draft(None, (2 * width, 2 * height)):
            box = _turned(drafted[1], picture.size, orientation)
    picture.load()
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    if picture.mode.startswith("I;16"):
        # 16-bit grey, which Pillow would clip at 255.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture if picture.mode == "RGB" else picture.convert("RGB"), box


def _orientation(picture: Image.Image) -> int | None:
    """EXIF's orientation; None if it is missing or unreadable."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises many types on damaged EXIF data
        return None


def _turned(box: _Box, size: tuple[int, int], orientation: int | None) -> _Box:
    """The place of a box at the upper left of a picture of that size after turning it upright."""
    width, height = box[2:]
    columns, rows = size
    if orientation in _SWAPS_AXES:
        width, height, columns, rows = height, width, rows, columns
    left = columns - width if orientation in _FLIPS_X else 0
    top = rows - height if orientation in _FLIPS_Y else 0
    return left, top, left + width, top + height
