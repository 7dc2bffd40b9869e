"""The one way to open a picture: a builder, training and search get the same pixels.

A picture stands as its EXIF data says, is RGB, and is resized by the bilinear filter that smooths
where it makes a picture smaller: that of Pillow, and so of torchvision's Resize, which IRRA uses.
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

# Crops of people are a thousand times smaller; what is larger is damaged or an attack.
MAX_PIXELS = 2**24
# Of the pictures in a dataset's records, and of those in folders that people have.
RECORD_FORMATS = ("JPEG", "PNG")
FORMATS = (*RECORD_FORMATS, "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# What turns a picture upright, by EXIF's orientation; what that does to its axes.
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

Pixels = UInt8[np.ndarray, "height width 3"]
Source = bytes | str | os.PathLike[str] | Image.Image | Pixels
_Box = tuple[float, float, float, float]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def is_picture_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture by its name, and not what a system leaves beside pictures."""
    return pathlib.PurePath(path).suffix.lower() in SUFFIXES and not is_clutter(path)


def open_picture(
    source: Source, *, name: str = "the picture", formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Open a picture in full, upright and RGB.

    Args:
        source: the bytes of a file, its path, a PIL image, or an array of RGB pixels.
        name: of a picture that has no path, for messages.
        formats: those that are accepted, as Pillow names them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the picture, where it is not one, is damaged, or has more than
            `MAX_PIXELS` pixels.
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
    """Yield `function(item)` of each item in order, computed at most `ahead` items ahead.

    Args:
        function: raises what the iterator then raises.
        items: drawn as they are needed, by the thread that iterates.
        threads: 0: one for each core, at most 8, since Python holds its lock for part of a picture.
        ahead: items that are computed while the first of them is waited for.
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
    """A picture upright and RGB, and the part that it fills, where it is large, to be fitted."""
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
        raise FileNotFoundError(f"{name}: there is no such picture") from None
    # Pillow reports damage by whatever its decoders happen to raise.
    except Exception as error:
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):
            size = len(source) if isinstance(source, bytes) else os.path.getsize(name)
            reason = "it does not begin as one" if size else "the file is empty"
        raise ValueError(
            f"{name}: cannot be decoded ({reason}); expected a {' or '.join(formats)} picture of "
            f"at most {MAX_PIXELS} pixels"
        ) from error


def _upright(picture: Image.Image, fit: tuple[int, int] | None) -> tuple[Image.Image, _Box | None]:
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"it has {picture.width}×{picture.height} pixels")
    if picture.format not in ("JPEG", "MPO"):
        picture.load()  # EXIF data may stand behind the pixels, and a TIFF turns as it is loaded
    orientation, box = _orientation(picture), None
    if fit is not None:
        height, width = reversed(fit) if orientation in _SWAPS_AXES else fit
        # The JPEG decoder halves a picture at far less cost than a filter does. With a factor
        # of two left to the filter, the result is all but the same.
        if drafted := picture.draft(None, (2 * width, 2 * height)):
            box = _turned(drafted[1], picture.size, orientation)
    picture.load()
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    if picture.mode.startswith("I;16"):
        # 16-bit grey, of which Pillow would cut off what is above 255.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture if picture.mode == "RGB" else picture.convert("RGB"), box


def _orientation(picture: Image.Image) -> int | None:
    """EXIF's orientation; None where there is none, or none that can be read."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever Pillow's reader meets in damaged EXIF data
        return None


def _turned(box: _Box, size: tuple[int, int], orientation: int | None) -> _Box:
    """Where a box at the upper left of a picture of a size is once that stands upright."""
    width, height = box[2:]
    columns, rows = size
    if orientation in _SWAPS_AXES:
        width, height, columns, rows = height, width, rows, columns
    left = columns - width if orientation in _FLIPS_X else 0
    top = rows - height if orientation in _FLIPS_Y else 0
    return left, top, left + width, top + height
