"""UPAR 2027: the challenge's labels over the pictures of Market-1501, PA-100K and PETA."""

import dataclasses
import logging
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from tfds_builders import layout, tables
from tfds_builders.market1501_attribute import builder as market1501_attribute
from tfds_builders.pa100k import builder as pa100k
from tfds_builders.peta import builder as peta
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits
from tfds_builders.upar.schema import FILE_NAMES, SCHEMA
from tfds_builders.upar.wording import WORDING

# Our split -> the files' name for it; the challenge's test pictures are private.
_SPLITS = {"train": "train", "test": "val"}
# Official pictures by split and domain, and distinct descriptions by split.
_PICTURES = {
    "train": {"market1501": 10_000, "pa100k": 79_001, "peta": 8_668},
    "test": {"market1501": 16_458, "pa100k": 9_986, "peta": 6_963},
}
_QUERIES = {"train": 7_204, "test": 3_462}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Domain:
    """One of the three datasets: its name, its paths in the files, and where its pictures are.

    `find` takes manual_dir and instructions, and returns a function from the end of a picture's
    path in the files to its place on disk.
    """

    dataset: str
    path: re.Pattern[str]
    find: Callable[[pathlib.Path, str], Callable[[str], pathlib.Path]]


_DOMAINS = {
    "market1501": _Domain(
        "market1501_attribute",
        re.compile(r"Market1501/((?:bounding_box_train|bounding_box_test|query)/[\w.-]+)", re.A),
        market1501_attribute.find_pictures,
    ),
    "pa100k": _Domain(
        "pa100k",
        re.compile(r"PA100k/release_data/release_data/([\w-][\w.-]*)", re.A),
        pa100k.find_pictures,
    ),
    "peta": _Domain("peta", re.compile(r"PETA/images/(\d{5}\.png)", re.A), peta.find_pictures),
}


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The contents of one CSV file, a row for each picture."""

    images: list[str]
    attributes: UInt8[np.ndarray, "pictures attributes"]


@dataclasses.dataclass(eq=False)
class UparConfig(tfds.core.BuilderConfig):
    """The domains for training and for testing."""

    train: tuple[str, ...] = tuple(_DOMAINS)
    test: tuple[str, ...] = tuple(_DOMAINS)


def _configs() -> list[UparConfig]:
    configs = [UparConfig(name="all", description="all three domains")]
    for domain in _DOMAINS:
        text = f"{domain} alone"
        configs.append(UparConfig(name=domain, description=text, train=(domain,), test=(domain,)))
    for domain in _DOMAINS:
        others = tuple(other for other in _DOMAINS if other != domain)
        text = f"trained on {' and '.join(others)}, tested on {domain}"
        name = f"without_{domain}"
        configs.append(UparConfig(name=name, description=text, train=others, test=(domain,)))
    return configs


class Upar(PersonSearchBuilder):
    """UPAR (Specker et al., WACV 2023), as the UPAR Challenge 2027 distributes it for task 2."""

    name = "upar"
    schema = SCHEMA
    wording = WORDING
    traits = Traits(cameras=False, query_folder=None, identities=False)
    one_division = True
    builder_config: UparConfig
    BUILDER_CONFIGS = _configs()
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the challenge's annotations/ into manual_dir, with train.csv and val.csv or "
        "task2/train/gt.csv and task2/val/gt.csv in it, and beside it the pictures: Market1501/, "
        "PA100k/ and PETA/, or what market1501_attribute, pa100k and peta are prepared from; "
        "links will do."
    )

    @classmethod
    def pictures(cls, config: str, split: str) -> frozenset[str]:
        """Return the datasets whose pictures a split uses."""
        [domains] = [getattr(one, split) for one in cls.BUILDER_CONFIGS if one.name == config]
        return frozenset(_DOMAINS[domain].dataset for domain in domains)

    def splits(self, manual_dir: pathlib.Path) -> dict[str, SplitRecords]:
        """Return train and test, which is the challenge's validation, in the files' order."""
        config = self.builder_config
        annotations = {split: self._annotations(manual_dir, split) for split in _SPLITS}
        both = set(annotations["train"].images).intersection(annotations["test"].images)
        if both:
            raise ValueError(
                f"{manual_dir}: train and val share {len(both)} pictures, such as "
                f"{min(both)}; expected none"
            )
        places = {
            domain: _DOMAINS[domain].find(manual_dir, self.MANUAL_DOWNLOAD_INSTRUCTIONS)
            for domain in _DOMAINS
            if domain in config.train or domain in config.test
        }
        return {
            "train": _records(annotations["train"], places, config.train),
            "test": _records(annotations["test"], places, config.test),
        }

    def _annotations(self, manual_dir: pathlib.Path, split: str) -> Annotations:
        """The labels of a split, after checking the other files against them."""
        name = _SPLITS[split]
        folder = manual_dir / "annotations"
        task = folder / "task2" / name
        path = layout.find_file(
            [folder / f"{name}.csv", task / "gt.csv"], self.MANUAL_DOWNLOAD_INSTRUCTIONS
        )
        found = read_annotations(path)
        queries, row = np.unique(found.attributes, axis=0, return_inverse=True)
        if (task / "queries.csv").is_file():
            _check_queries(task / "queries.csv", queries, path)
        if (task / "ids.csv").is_file():
            _check_ids(
                task / "ids.csv", dict(zip(found.images, row.ravel().tolist(), strict=True)), path
            )
        counts = Counter(_domain(image) or "" for image in found.images)
        if counts != _PICTURES[split] or len(queries) != _QUERIES[split]:
            _log.warning(
                "%s has %s; the official file has %s",
                path,
                _in_words(counts, len(queries)),
                _in_words(_PICTURES[split], _QUERIES[split]),
            )
        return found


def read_annotations(path: pathlib.Path) -> Annotations:
    """Return pictures and labels of `train.csv`, `val.csv` or a `gt.csv`.

    Raises:
        ValueError: an entry is invalid; the message names its line and column.
    """
    images: dict[str, int] = {}
    attributes = []
    for line, (image, *cells) in _labelled(path, ("image", *FILE_NAMES)):
        if _domain(image) is None:
            raise ValueError(
                f"{path}: line {line}, image is {image!r}; expected a path below Market1501/, "
                "PA100k/release_data/release_data/ or PETA/images/"
            )
        if image in images:
            raise ValueError(
                f"{path}: line {line} lists {image}, which is also in line {images[image]}"
            )
        images[image] = line
        attributes.append(_bits(cells, path, line))
    if not images:
        raise ValueError(f"{path}: no pictures are listed")
    return Annotations(list(images), np.array(attributes, np.uint8))


def _labelled(path: pathlib.Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The lines below the header, which must name the columns."""
    lines = tables.rows(path)
    number, header = next(lines, (1, [""]))
    header[0] = header[0].removeprefix("#").strip()
    for column, (found, expected) in enumerate(zip(header, columns, strict=False), 1):
        if found != expected:
            raise ValueError(
                f"{path}: line {number}, column {column} is {found!r}; expected {expected!r}"
            )
    _require_width(header, columns, path, number)
    for line, cells in lines:
        _require_width(cells, columns, path, line)
        yield line, cells


def _require_width(
    cells: list[str], columns: tuple[str, ...], path: pathlib.Path, line: int
) -> None:
    if len(cells) != len(columns):
        raise ValueError(f"{path}: line {line} has {len(cells)} columns; expected {len(columns)}")


def _bits(cells: list[str], path: pathlib.Path, line: int) -> list[int]:
    return [
        tables.bit(cell, path, line, name) for name, cell in zip(FILE_NAMES, cells, strict=True)
    ]


def _check_queries(
    path: pathlib.Path, expected: UInt8[np.ndarray, "queries attributes"], labels: pathlib.Path
) -> None:
    found = [_bits(cells, path, line) for line, cells in _labelled(path, FILE_NAMES)]
    if found != expected.tolist():
        raise ValueError(
            f"{path}: its {len(found)} rows are not the {len(expected)} distinct descriptions of "
            f"{labels} in lexicographic order; take both from one version, or remove {path.name}"
        )


def _check_ids(path: pathlib.Path, expected: Mapping[str, int], labels: pathlib.Path) -> None:
    found = {}
    for line, cells in tables.rows(path):
        _require_width(cells, ("image", "query"), path, line)
        image, row = cells
        if str(expected.get(image)) != row or image in found:
            raise ValueError(
                f"{path}: line {line} is {image},{row}, which disagrees with {labels}: take both "
                f"from one version, or remove {path.name}"
            )
        found[image] = row
    if len(found) != len(expected):
        raise ValueError(f"{path} lists {len(found)} pictures; {labels} lists {len(expected)}")


def _domain(image: str) -> str | None:
    """The dataset of a path in the files."""
    return next((name for name, one in _DOMAINS.items() if one.path.fullmatch(image)), None)


def _in_words(pictures: Mapping[str, int], queries: int) -> str:
    by_domain = ", ".join(f"{name} {count:,}" for name, count in sorted(pictures.items()))
    total = sum(pictures.values())
    return f"{total:,} pictures ({by_domain}) of {queries:,} distinct descriptions"


def _records(
    annotations: Annotations,
    places: Mapping[str, Callable[[str], pathlib.Path]],
    domains: tuple[str, ...],
) -> SplitRecords:
    """The pictures of some domains, checking that none is missing."""
    records, missing = [], []
    for image, attributes in zip(annotations.images, annotations.attributes, strict=True):
        domain = _domain(image)
        if domain not in domains:
            continue
        match = _DOMAINS[domain].path.fullmatch(image)
        assert match is not None
        path = places[domain](match[1])
        if not path.is_file():
            missing.append(path)
        records.append(Record(image, path, attributes))
    if missing:
        raise FileNotFoundError(
            f"{missing[0]}: no such picture; {len(missing)} of the {len(records)} that the "
            "annotations list are missing. Unpack the pictures again, or remove their rows."
        )
    if not records:
        raise ValueError(f"the annotations list no pictures of {' or '.join(domains)}")
    return SplitRecords(len(records), records)
