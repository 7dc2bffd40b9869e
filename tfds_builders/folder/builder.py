"""The user's own dataset: pictures, `labels.csv` and `schema.json` in one folder."""

import dataclasses
import difflib
import hashlib
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from aima_jax.attributes import AttributeSchema, Group
from aima_jax.data.pictures import is_picture_name
from aima_jax.text import TEMPLATES, PromptTemplate, Wording
from aima_jax.text.tokenizer import CONTEXT_LENGTH, encode
from tfds_builders import tables
from tfds_builders.folder.schema import RESERVED, Content, Shares, read_schema
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits

_LABELS, _SCHEMA = "labels.csv", "schema.json"
_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(eq=False, repr=False)
class FolderConfig(tfds.core.BuilderConfig):
    """The contents of the two files, and their checksums."""

    content: Content | None = None
    records: dict[str, list[Record]] = dataclasses.field(default_factory=dict)
    checksums: dict[str, str] = dataclasses.field(default_factory=dict)


class Folder(PersonSearchBuilder):
    """Pictures with user-defined attributes; the config is the name in `schema.json`."""

    name = "folder"
    builder_config: FolderConfig
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Give the folder with the pictures, {_LABELS} and {_SCHEMA} as manual_dir."
    )

    @classmethod
    def config_name(cls, name: str) -> str:
        """Return the name if it is valid; whether it exists is not known yet.

        Raises:
            ValueError: the name is invalid.
        """
        if not name or not name.replace("-", "_").replace("_", "a").isalnum():
            raise ValueError(
                f"dataset 'folder/{name}': expected folder/ and the name in {_SCHEMA}, made of "
                "letters, digits, _ and -"
            )
        return name

    @classmethod
    def read_config(cls, name: str, manual_dir: pathlib.Path) -> FolderConfig:
        """Read both files.

        Raises:
            FileNotFoundError: one of them or a listed picture is missing.
            ValueError: an entry is invalid; the message names its line and column.
        """
        paths = [manual_dir / file for file in (_SCHEMA, _LABELS)]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        content = read_schema(paths[0])
        if content.schema.name != name:
            raise ValueError(
                f"{paths[0]} names the dataset {content.schema.name!r}; expected {name!r}, or the "
                f"dataset folder/{content.schema.name}"
            )
        records, has_identities = read_labels(paths[1], content)
        content = dataclasses.replace(
            content, traits=content.traits or Traits(False, None, has_identities)
        )
        return FolderConfig(name=name, content=content, records=records, checksums=checksums)

    @property
    def schema(self) -> AttributeSchema:
        """The schema in `schema.json`."""
        return self._content.schema

    @property
    def wording(self) -> Wording:
        """The wording in `schema.json`, or one generated from the schema's names."""
        return self._content.wording

    @property
    def traits(self) -> Traits:
        """The traits in `schema.json`, or their defaults."""
        assert self._content.traits is not None
        return self._content.traits

    @property
    def _content(self) -> Content:
        content = self.builder_config.content
        assert content is not None
        return content

    @property
    def sources(self) -> dict[str, str]:
        """Checksums of both files."""
        return self.builder_config.checksums

    def splits(self, manual_dir: pathlib.Path) -> dict[str, SplitRecords]:
        """Return train, val and test, each in the file's order; report unlisted pictures."""
        splits = self.builder_config.records
        listed = {record.filename for records in splits.values() for record in records}
        names = (path.relative_to(manual_dir).as_posix() for path in manual_dir.rglob("*"))
        if others := sorted(name for name in names if is_picture_name(name) and name not in listed):
            print(
                f"left out: {len(others)} pictures that {_LABELS} does not list, such as "
                f"{', '.join(others[:5])}",
                file=sys.stderr,
            )
        return {name: SplitRecords(len(records), records) for name, records in splits.items()}


def read_labels(path: pathlib.Path, content: Content) -> tuple[dict[str, list[Record]], bool]:
    """Return the records of each split of `labels.csv`, and whether it names identities.

    Raises:
        FileNotFoundError: a picture is missing.
        ValueError: an entry is invalid; the message names its line and column.
    """
    schema, lines = content.schema, tables.rows(path)
    number, header = next(lines, (1, []))
    columns = _columns(header, schema, path, number)
    numbers, given, attributes = [], {name: [] for name in RESERVED}, []
    seen: dict[str, int] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}: line {line} has {len(cells)} columns; expected {len(header)}"
            )
        row = dict(zip(header, cells, strict=True))
        name = _picture(row["image"], path, line)
        if name in seen:
            raise ValueError(f"{path}: line {line}, image: {name} is also in line {seen[name]}")
        seen[name] = line
        numbers.append(line)
        given["image"].append(name)
        for column in RESERVED[1:]:
            given[column].append(row.get(column, ""))
        attributes.append(_bits(row, columns, schema, path, line))
    if not numbers:
        raise ValueError(f"{path}: no pictures are listed")
    rows = np.array(attributes, np.uint8)
    _check_sentences(rows, content, path, numbers)
    if "split" in header:
        for line, split in zip(numbers, given["split"], strict=True):
            if split not in _SPLITS:
                raise ValueError(
                    f"{path}: line {line}, split is {split!r}; expected {', '.join(_SPLITS)}"
                )
    else:
        people = [who or f"\0{name}" for who, name in zip(given["identity"], seen, strict=True)]
        given["split"] = draw_splits(people, content.shares)
    for split in ("train", "test"):
        if split not in given["split"]:
            raise ValueError(
                f"{path}: split {split} has no pictures; "
                + ("assign some" if "split" in header else "add people or change the shares")
            )
    records = {split: [] for split in _SPLITS if split in given["split"]}
    identities, cameras = _numbered(given["identity"]), _numbered(given["camera"])
    for place, (split, name) in enumerate(zip(given["split"], seen, strict=True)):
        record = Record(name, path.parent / name, rows[place], identities[place], cameras[place])
        records[split].append(record)
    return records, any(given["identity"])


def draw_splits(people: Sequence[str], shares: Shares) -> list[str]:
    """Draw a split for each picture, with nobody in two splits: test first, then val, then train.

    Args:
        people: the person in each picture.
        shares: target shares of the pictures, met as closely as whole people allow, and the seed.
    """
    names, who, pictures = np.unique(people, return_inverse=True, return_counts=True)
    order = np.random.default_rng(shares.seed).permutation(len(names))
    # A person's split is decided by the position of the middle of the person's pictures.
    middle = (np.cumsum(pictures[order]) - pictures[order] / 2) / pictures.sum()
    split = np.where(middle < shares.test + shares.val, "val", "train")
    split[middle < shares.test] = "test"
    if "test" not in split:
        split[0] = "test"
    of_person = np.empty(len(names), split.dtype)
    of_person[order] = split
    return of_person[who].tolist()


def _columns(
    header: list[str], schema: AttributeSchema, path: pathlib.Path, line: int
) -> dict[str, tuple[Group, str | None]]:
    """Map each attribute column to its group and, if it is a column for one bit, to that bit."""
    known = {group.name: (group, None) for group in schema.groups}
    known |= {bit: (group, bit) for group in schema.groups for bit in group.bits}
    columns = {}
    for place, name in enumerate(header, 1):
        where = f"{path}: line {line}, column {place}"
        if header.count(name) > 1:
            raise ValueError(f"{where}: {name!r} appears twice")
        if name in known:
            columns[name] = known[name]
        elif name not in RESERVED:
            near = difflib.get_close_matches(name, (*known, *RESERVED), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: {name!r} is not a group or bit of the schema{hint}")
    if "image" not in header:
        raise ValueError(f"{path}: line {line}: the column image is missing")
    for group in schema.groups:
        bits = [bit for bit in group.bits if bit in columns]
        as_group = group.name in columns and group.kind != "flag"
        if (len(bits) == len(group.bits)) == as_group or (as_group and bits):
            raise ValueError(
                f"{path}: line {line}: {group.name} needs a column {group.name}"
                + (f", or columns {', '.join(group.bits)}" if group.kind != "flag" else "")
            )
    return columns


def _picture(name: str, path: pathlib.Path, line: int) -> str:
    """A picture's path below the folder, in POSIX form."""
    parts = pathlib.PureWindowsPath(name)
    if not name or not name.isprintable() or parts.drive or parts.root or ".." in parts.parts:
        raise ValueError(
            f"{path}: line {line}, image is {name!r}; expected a path below {path.parent}"
        )
    if not path.parent.joinpath(*parts.parts).is_file():
        raise FileNotFoundError(f"{path}: line {line}, image: no such picture: {name}")
    return parts.as_posix()


def _bits(
    row: dict[str, str],
    columns: dict[str, tuple[Group, str | None]],
    schema: AttributeSchema,
    path: pathlib.Path,
    line: int,
) -> UInt8[np.ndarray, "attributes"]:
    held: set[str] = set()
    for column, (group, bit) in columns.items():
        cell = row[column]
        if bit is not None:
            held |= {bit} if tables.bit(cell, path, line, column) else set()
            continue
        values = [value.strip() for value in cell.split(";")] if cell else []
        if group.kind == "exclusive" and values in ([], [group.absent]):
            values = [] if group.absent is not None else [""]
        if group.kind == "exclusive" and len(values) > 1:
            raise ValueError(f"{path}: line {line}, {column} is {cell!r}; expected one value")
        for value in values:
            if value not in group.values:
                raise ValueError(
                    f"{path}: line {line}, {column} is {value!r}; expected "
                    f"{', '.join(group.answers)}"
                )
            held.add(f"{group.name}={value}")
    bits = np.array([name in held for name in schema.names], np.uint8)
    try:
        schema.decode(bits)
    except ValueError as error:
        raise ValueError(f"{path}: line {line}: {error}") from error
    return bits


def _check_sentences(
    rows: UInt8[np.ndarray, "pictures attributes"],
    content: Content,
    path: pathlib.Path,
    numbers: list[int],
) -> None:
    """Check that every description fits into 77 tokens and differs from the others in words."""
    distinct, first = np.unique(rows, axis=0, return_index=True)
    for name in TEMPLATES:
        template = PromptTemplate(content.schema, name, content.wording)
        lines: dict[str, int] = {}
        for bits, place in zip(distinct, first.tolist(), strict=True):
            text, line = template.render(bits).text, numbers[place]
            if len(encode(text)) + 2 > CONTEXT_LENGTH:
                raise ValueError(
                    f"{path}: line {line}: its sentence has more than {CONTEXT_LENGTH} tokens; "
                    f"use shorter words in the wording in {_SCHEMA}: {text!r}"
                )
            if text in lines:
                raise ValueError(
                    f"{path}: lines {lines[text]} and {line} differ but have the same sentence; "
                    f"give {_SCHEMA} a wording that distinguishes them: {text!r}"
                )
            lines[text] = line


def _numbered(column: list[str]) -> list[int]:
    """Keep numbers if all entries are numbers, else use each name's rank; -1 for empty entries."""
    names = sorted(set(filter(None, column)))
    if all(name.isascii() and name.isdecimal() and int(name) < 2**31 for name in names):
        number = {name: int(name) for name in names}
    else:
        number = {name: place for place, name in enumerate(names)}
    return [number.get(name, -1) for name in column]
