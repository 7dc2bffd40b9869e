"""Facts of the pictures of a gallery: from a CSV file, or from names that say them."""

import csv
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from aima_jax.files import user_path

Fact = int | float | str
Facts = Mapping[str, Fact]

# Of what a CSV file may call the column with the pictures' names.
NAME_COLUMNS = ("name", "image", "file", "filename", "path")
# As 0002_c1s1_000451_03.jpg, and 0002_c1_f0000451.jpg.
_NAME = re.compile(r"(-1|\d+)_c(\d+)(?:s(\d+)_(\d+)_\d+|_f(\d+))")


def facts_of_name(name: str) -> dict[str, Fact]:
    """What a name such as `0002_c1s1_000451_03.jpg` says; nothing where it is another kind."""
    found = _NAME.match(pathlib.PurePosixPath(name).name)
    if not found:
        return {}
    identity, camera, sequence, *frames = found.groups()
    facts = {"identity": identity, "camera": camera, "sequence": sequence}
    facts["frame"] = frames[0] or frames[1]
    return {column: int(text) for column, text in facts.items() if text is not None}


def read_facts(path: str | os.PathLike[str]) -> dict[str, dict[str, Fact]]:
    """Read the facts of pictures from a CSV file with a line for each, by their names.

    One column has the names, as paths in the folder, and is called as one of `NAME_COLUMNS`. A
    column holds integers, else numbers, if all that it says are those; what is empty is not said.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else; the message says which line or column.
    """
    path = user_path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}; expected a CSV file with facts") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    named = [column for column in NAME_COLUMNS if column in header]
    if not named:
        raise ValueError(
            f"{path}: no column is called {' or '.join(NAME_COLUMNS)}, of the pictures' names in "
            f"the folder; its first line is {','.join(header)!r}"
        )
    wrong = [x for x in header if x not in named and (not x.isidentifier() or x in NAME_COLUMNS)]
    if wrong or len(named) > 1 or len(set(header)) < len(header):
        raise ValueError(
            f"{path}: columns {header}; expected one of {', '.join(NAME_COLUMNS)}, and others, "
            "each once, of letters, digits and _"
        )
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number}: {len(row)} values; expected {len(header)}")
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=False))
    names = columns.pop(named[0], [])
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: {twice} has two rows")
    facts: dict[str, dict[str, Fact]] = {name: {} for name in names}
    for column, texts in columns.items():
        for name, value in zip(names, _typed(texts), strict=True):
            if value != "":
                facts[name][column] = value
    return facts


def columns_of(facts: Sequence[Facts]) -> dict[str, Shaped[np.ndarray, "gallery"]]:
    """Facts of pictures as an array for each column; what is not said is NaN or an empty text."""
    columns = {}
    for column in dict.fromkeys(column for each in facts for column in each):
        values = [each.get(column) for each in facts]
        if any(isinstance(value, str) for value in values):
            array = np.array(["" if value is None else str(value) for value in values], np.str_)
        elif None in values or any(isinstance(value, float) for value in values):
            array = np.array([math.nan if value is None else value for value in values], float)
        else:
            array = np.array(values, np.int64)
        columns[column] = array
    return columns


def facts_of(columns: Mapping[str, Shaped[np.ndarray, "gallery"]], row: int) -> dict[str, Fact]:
    """The facts of one picture: the inverse of `columns_of`."""
    facts = {column: array[row].item() for column, array in columns.items()}
    return {column: value for column, value in facts.items() if value == value and value != ""}


def _typed(texts: Sequence[str]) -> Sequence[Fact]:
    """The values of a column, "" where it says nothing."""
    said = [text for text in texts if text]
    if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", text) for text in said):  # 007 is a name
        return [int(text) if text else "" for text in texts]
    if all(re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", text) for text in said):
        return [float(text) if text else "" for text in texts]
    return texts
