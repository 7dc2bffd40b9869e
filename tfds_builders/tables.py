"""A CSV reader that keeps line numbers for messages."""

import csv
import io
import pathlib
from collections.abc import Iterator


def rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the stripped cells of each non-empty line.

    Raises:
        ValueError: the file is not text, or a quote in it is not closed.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is not UTF-8 text; save it as CSV UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if any(cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num} is not CSV: {error}") from error


def bit(cell: str, path: pathlib.Path, line: int, column: str) -> int:
    """Return the cell as 0 or 1.

    Raises:
        ValueError: the cell is neither.
    """
    if cell not in ("0", "1"):
        raise ValueError(f"{path}: line {line}, {column} is {cell!r}; expected 0 or 1")
    return int(cell)
