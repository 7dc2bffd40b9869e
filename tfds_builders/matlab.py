"""Reads the MATLAB files in which the datasets' authors distribute their labels."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.io


def read_labels(path: pathlib.Path, dataset: str, variables: Sequence[str]) -> dict[str, Any]:
    """Returns the variables of a label file, structs as dicts and cells as arrays.

    Raises:
        ValueError: the file is damaged, or it is that of another dataset.
    """
    try:
        content = scipy.io.loadmat(path, simplify_cells=True)
    # scipy reports damage by whatever its parser happens to stumble over.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read ({error or type(error).__name__}); expected the MATLAB file "
            f"of {dataset}'s labels as its authors distribute it: download it again"
        ) from error
    require_fields(content, variables, path, dataset)
    return content


def require_fields(
    struct: Any, fields: Sequence[str], path: pathlib.Path, dataset: str, where: str = "it"
) -> None:
    """ValueError unless a struct of the label file has the fields."""
    found = [name for name in struct if not name.startswith("__")] if _is_struct(struct) else []
    missing = [name for name in fields if name not in found]
    if missing:
        raise ValueError(
            f"{path}: not {dataset}'s label file: {where} lacks {', '.join(missing)}; "
            f"found {', '.join(found) or 'no fields'}"
        )


def strings(cell: Any) -> list[str]:
    """The strings of a cell array, which comes as a plain string where it has only one."""
    return [str(value) for value in np.atleast_1d(cell)]


def bits(
    values: Any, shape: tuple[int, int], path: pathlib.Path, where: str
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Returns labels as uint8 of the given shape; ValueError unless they are all 0 or 1."""
    values = np.asarray(values)
    if values.size != shape[0] * shape[1]:
        raise ValueError(
            f"{path}: {where} has {values.size} labels; expected {shape[0]} pictures × {shape[1]} "
            "attributes"
        )
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: {where} has labels other than 0 and 1")
    return values.astype(np.uint8).reshape(shape)


def _is_struct(value: Any) -> bool:
    return isinstance(value, dict)
