"""Checks that a label file is what a builder expects, and says clearly where it is not."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tfds_builders import matlab


def read(path: pathlib.Path, dataset: str, variables: Sequence[str]) -> dict[str, Any]:
    """Returns the variables of a MATLAB file.

    Raises:
        ValueError: the file is damaged, or it is that of another dataset.
    """
    try:
        content = matlab.read(path)
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); expected the MATLAB file of {dataset}'s labels as "
            "its authors distribute it: download it again"
        ) from error
    require_fields(content, variables, path, dataset)
    return content


def require_fields(
    struct: Any, fields: Sequence[str], path: pathlib.Path, dataset: str, where: str = "it"
) -> None:
    """ValueError unless a struct of the label file has the fields."""
    found = list(struct) if isinstance(struct, dict) else []
    missing = [name for name in fields if name not in found]
    if missing:
        raise ValueError(
            f"{path}: not {dataset}'s label file: {where} lacks {', '.join(missing)}; "
            f"found {', '.join(found) or 'no fields'}"
        )


def strings(value: Any, path: pathlib.Path, where: str) -> list[str]:
    """Returns the texts of a cell array, or the rows of a text; ValueError where it is neither."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{path}: {where} is no list of texts")
    return values


def integers(value: Any, path: pathlib.Path, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns whole numbers in the shape they have; ValueError where they are something else."""
    if isinstance(value, np.ndarray):
        with np.errstate(invalid="ignore"):
            whole = value.astype(np.int64)
        if np.array_equal(whole, value):
            return whole
    raise ValueError(f"{path}: {where} is no array of whole numbers")


def bits(
    value: Any, shape: tuple[int, int], path: pathlib.Path, where: str
) -> UInt8[np.ndarray, "pictures attributes"]:
    """Returns labels as uint8 of the given shape; ValueError unless they are all 0 or 1."""
    values = integers(value, path, where)
    if values.shape != shape:
        raise ValueError(
            f"{path}: {where} has shape {values.shape}; expected {shape[0]} pictures × {shape[1]} "
            "attributes"
        )
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: {where} has labels other than 0 and 1")
    return values.astype(np.uint8)
