"""A checking reader for the datasets' label files, which are MATLAB level 5 files.

scipy's reader crashes the whole process on some damaged files; this one checks every length before
using it. The format is documented in "MAT-File Format", MathWorks.
"""

import math
import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

# Numbers become an array, text a str (a list of them if it has several rows), a cell array the list
# of its cells in column order, a struct a dict, and a struct array a list of dicts.
Value = np.ndarray | str | list | dict

_HEADER = 128
_HDF5 = b"\x89HDF\r\n\x1a\n"  # follows the header of a v7.3 file
_BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
_MAX_BYTES = 2**27  # twenty times the inflated size of the largest real file
_MAX_DEPTH = 16

_MATRIX, _COMPRESSED = 14, 15
_STORAGE = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORAGE |= {12: "i8", 13: "u8"}
_TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_NUMBERS |= {14: "i8", 15: "u8"}

_Element = tuple[int, memoryview]


def read(path: pathlib.Path) -> dict[str, Value]:
    """Return the variables of a file by name.

    Raises:
        ValueError: it is damaged, or not a MATLAB level 5 file.
    """
    data = path.read_bytes()
    if data.startswith(_HDF5, 512):
        raise ValueError(
            "it is a MATLAB v7.3 file; in MATLAB, S = load('FILE'); save('FILE', '-struct', 'S', "
            "'-v7') converts it to v7"
        )
    order = _BYTE_ORDERS.get(data[_HEADER - 2 : _HEADER])
    if order is None or data[124:126] != (b"\x00\x01" if order == "<" else b"\x01\x00"):
        raise ValueError("it does not begin like a MATLAB level 5 file")
    variables = {}
    try:
        for kind, content in _elements(memoryview(data)[_HEADER:], order):
            if kind == _COMPRESSED:
                kind, content = _take(_elements(_inflate(content), order))
            if kind != _MATRIX:
                raise ValueError(f"a variable has the unknown type {kind}")
            name, value = _matrix(content, order)
            variables[name] = value
    except zlib.error as error:
        raise ValueError(f"its compressed data is damaged: {error}") from error
    return variables


def read_variables(path: pathlib.Path, dataset: str, variables: Sequence[str]) -> dict[str, Any]:
    """Return the variables of a MATLAB file.

    Raises:
        ValueError: the file is damaged, or belongs to another dataset.
    """
    try:
        content = read(path)
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); expected the MATLAB file with {dataset}'s labels "
            "as its authors distribute it: download it again"
        ) from error
    require_fields(content, variables, path, dataset)
    return content


def require_fields(
    struct: Any, fields: Sequence[str], path: pathlib.Path, dataset: str, where: str = "it"
) -> None:
    """Check that a struct of the label file has the given fields.

    Raises:
        ValueError: a field is missing.
    """
    found = list(struct) if isinstance(struct, dict) else []
    missing = [name for name in fields if name not in found]
    if missing:
        raise ValueError(
            f"{path}: not {dataset}'s label file: {where} lacks {', '.join(missing)}; "
            f"found {', '.join(found) or 'no fields'}"
        )


def strings(value: Any, path: pathlib.Path, where: str) -> list[str]:
    """Return the strings of a cell array, or the rows of a text.

    Raises:
        ValueError: the value is neither.
    """
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{path}: {where} is not a list of strings")
    return values


def integers(value: Any, path: pathlib.Path, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return an array as integers, its shape unchanged.

    Raises:
        ValueError: the value is not an array of integers.
    """
    if isinstance(value, np.ndarray):
        with np.errstate(invalid="ignore"):
            integers = value.astype(np.int64)
        if np.array_equal(integers, value):
            return integers
    raise ValueError(f"{path}: {where} is not an array of integers")


def bits(
    value: Any, shape: tuple[int, int], path: pathlib.Path, where: str
) -> UInt8[np.ndarray, "pictures attributes"]:
    """Return labels as uint8 of the given shape.

    Raises:
        ValueError: the shape differs, or a label is neither 0 nor 1.
    """
    values = integers(value, path, where)
    if values.shape != shape:
        raise ValueError(
            f"{path}: {where} has shape {values.shape}; expected {shape[0]} pictures × {shape[1]} "
            "attributes"
        )
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: {where} has labels other than 0 and 1")
    return values.astype(np.uint8)


def _inflate(content: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    data = stream.decompress(content, _MAX_BYTES)
    if not stream.eof:
        raise ValueError("its compressed data ends too early, or is too long")
    return memoryview(data)


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """The types and contents of consecutive elements."""
    tag = struct.Struct(f"{order}II")
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise ValueError("it ends in the middle of an element")
        kind, size = tag.unpack_from(data, position)
        start = position + 8
        position = start + size
        if kind >> 16:  # up to four bytes are stored in place of the size
            kind, size = kind & 0xFFFF, kind >> 16
            start, position = start - 4, start
            if size > 4:
                raise ValueError(f"a short element has {size} bytes")
        elif kind != _COMPRESSED:
            position += -size % 8
        if start + size > len(data):
            raise ValueError("it ends in the middle of an element")
        yield kind, data[start : start + size]


def _take(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise ValueError("an element is missing")
    return element


def _matrix(data: memoryview, order: str, depth: int = 0) -> tuple[str, Value]:
    """The name and the value of an array of any class."""
    if not len(data):
        return "", np.zeros((0, 0))
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    elements = _elements(data, order)
    flags = _numbers(_take(elements), order)
    shape = tuple(_numbers(_take(elements), order).tolist())
    name = _text(_take(elements), order)
    kind = int(flags[0]) & 0xFF if len(flags) else 0
    # Every member takes at least one byte: no memory is allocated for members that are missing.
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) > len(data):
        raise ValueError(f"an array has the shape {shape}")
    if kind in _NUMBERS:
        values = _numbers(_take(elements), order).astype(_NUMBERS[kind])
        return name, _shaped(values, shape)
    if kind == _CHAR:
        return name, _rows(_text(_take(elements), order), shape)
    members = range(math.prod(shape))
    if kind == _CELL:
        return name, [_member(elements, order, depth) for _ in members]
    if kind == _STRUCT:
        fields = _field_names(elements, order)
        structs = [{field: _member(elements, order, depth) for field in fields} for _ in members]
        return name, structs[0] if len(structs) == 1 else structs
    raise ValueError(f"an array is of class {kind}; expected numbers, text, cells or structs")


def _member(elements: Iterator[_Element], order: str, depth: int) -> Value:
    kind, content = _take(elements)
    if kind != _MATRIX:
        raise ValueError(f"a cell or field has the unknown type {kind}")
    return _matrix(content, order, depth + 1)[1]


def _numbers(element: _Element, order: str) -> np.ndarray[Any, np.dtype[Any]]:
    kind, content = element
    if kind not in _STORAGE:
        raise ValueError(f"numbers have the unknown type {kind}")
    return np.frombuffer(content, np.dtype(order + _STORAGE[kind]))


def _text(element: _Element, order: str) -> str:
    kind, content = element
    if kind in _TEXT:
        suffix = {"<": "-le", ">": "-be"}[order] if kind != 16 else ""
        return bytes(content).decode(_TEXT[kind] + suffix)
    return "".join(map(chr, _numbers(element, order).tolist()))


def _field_names(elements: Iterator[_Element], order: str) -> list[str]:
    length = _numbers(_take(elements), order)
    names = bytes(_take(elements)[1])
    if length.shape != (1,) or length[0] < 1 or not names or len(names) % length[0]:
        raise ValueError("the fields of a struct have no names")
    size = int(length[0])
    return [
        names[start : start + size].split(b"\0")[0].decode() for start in range(0, len(names), size)
    ]


def _rows(text: str, shape: tuple[int, ...]) -> str | list[str]:
    if shape[0] <= 1:
        return text
    characters = _shaped(np.array(list(text)), shape)
    return ["".join(row).rstrip() for row in characters.reshape(shape[0], -1)]


def _shaped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.size != math.prod(shape):
        raise ValueError(f"an array of shape {shape} has {values.size} values")
    return values.reshape(shape, order="F")
