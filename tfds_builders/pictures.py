"""Reads pictures as they are distributed, and checks that training will be able to decode them."""

import collections
import concurrent.futures
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import PIL.Image

from aima_jax.data.decode import FORMATS, MAX_PIXELS

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_picture(path: pathlib.Path) -> bytes:
    """Returns the bytes of a picture file; FileNotFoundError where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: the label file lists this picture; it is missing"
        ) from None


def check_picture(data: bytes, name: str | os.PathLike) -> None:
    """Decodes a whole picture once.

    Raises:
        ValueError: naming the picture, where `data` is no sound JPEG or PNG of sensible size.
    """
    expected = "expected a whole JPEG or PNG picture; unpack or download it again"
    if not data:
        raise ValueError(f"{name}: the file is empty; {expected}")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                image.load()
    # Pillow reports damage by whatever its decoders happen to raise.
    except Exception as error:
        raise ValueError(f"{name}: cannot be decoded ({error}); {expected}") from error
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name}: {width}×{height} pixels; expected the crop of a person, "
            f"at most {MAX_PIXELS} pixels"
        )


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Maps `function` over `items` in order, a few items ahead of the one that is asked for."""
    workers = min(os.cpu_count() or 1, 8)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 8 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
