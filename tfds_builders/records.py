"""Base of the builders: the features of a record, and the writing of records.

A dataset's builder gives the schema of its attributes and the records of each split, in order. A
picture's bytes are stored unchanged, after decoding them once as a check; a BMP becomes a PNG,
without loss.
"""

import abc
import dataclasses
import functools
import io
import itertools
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from tqdm import tqdm

from aima_jax.attributes import AttributeSchema
from aima_jax.data.pictures import RECORD_FORMATS, in_threads, open_picture
from aima_jax.text import Wording
from tfds_builders.ctrl_c import checked

# A shard is held in memory while it is written.
_RECORDS_PER_SHARD = 4096
_SECONDS_BETWEEN_LINES = 10  # of progress, when output is piped

_Item = TypeVar("_Item")
_Shard = Callable[[], Iterator[tuple[int, dict[str, Any]]]]


@dataclasses.dataclass(frozen=True)
class Record:
    """One picture of a person.

    Attributes:
        filename: path below the dataset's root, in POSIX form.
        image: a JPEG, PNG or BMP picture, as bytes or as a file.
        attributes: the bits of the builder's schema.
        identity: the dataset's number for the person; -1 if it has none.
        camera: the dataset's number for the camera; -1 if it has none.
    """

    filename: str
    image: bytes | pathlib.Path
    attributes: UInt8[np.ndarray, "attributes"]
    identity: int = -1
    camera: int = -1


@dataclasses.dataclass(frozen=True)
class SplitRecords:
    """The records of a split, and their number."""

    count: int
    records: Iterable[Record]


@dataclasses.dataclass(frozen=True)
class Traits:
    """Properties of a dataset that protocols depend on.

    Attributes:
        cameras: whether a protocol removes pictures by its cameras.
        query_folder: the folder whose pictures represent their categories; None: all do.
        identities: whether its people are identified.
    """

    cameras: bool
    query_folder: str | None
    identities: bool


class PersonSearchBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base of the builders: a subclass gives `schema` and `splits`.

    Datasets are written shard by shard, because TFDS's other base class needs TensorFlow from a
    gigabyte upwards. Records keep the order of `splits`.
    """

    VERSION = tfds.core.Version("1.0.0")
    schema: AttributeSchema
    wording: Wording
    traits: Traits
    one_division = False  # whether all configs share one division into training and test pictures

    @classmethod
    def pictures(cls, config: str, split: str) -> frozenset[str]:
        """Return the datasets whose pictures a split uses."""
        return frozenset({cls.name})

    @classmethod
    def config_name(cls, name: str) -> str:
        """Return the name of a config, the default for ""; "" if the builder has no configs.

        Raises:
            ValueError: there is no such config.
        """
        configs = [config.name for config in cls.BUILDER_CONFIGS]
        if name and name not in configs:
            raise ValueError(
                f"dataset '{cls.name}/{name}' is unknown; expected {cls.name} "
                f"{'with one of ' + ', '.join(configs) if configs else 'alone'}"
            )
        return name or next(iter(configs), "")

    @classmethod
    def read_config(
        cls, name: str, manual_dir: pathlib.Path
    ) -> str | tfds.core.BuilderConfig | None:
        """Return the constructor's `config` argument for a name, reading the files if needed."""
        return name or None

    @property
    def sources(self) -> dict[str, str]:
        """Checksums of the files in manual_dir that make a prepared dataset stale if changed."""
        return {}

    @abc.abstractmethod
    def splits(self, manual_dir: pathlib.Path) -> Mapping[str, SplitRecords]:
        """Return the splits by name, in order.

        Args:
            manual_dir: where the user put the dataset's files; None for a builder without
                MANUAL_DOWNLOAD_INSTRUCTIONS, which needs none.

        Raises:
            FileNotFoundError, ValueError: the files are missing or invalid; raised here or while
                the records are read.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "attributes": tfds.features.Tensor(shape=(self.schema.size,), dtype=np.uint8),
                "identity": tfds.features.Scalar(np.int32),
                "camera": tfds.features.Scalar(np.int32),
                "filename": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=features, disable_shuffling=True
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[_Shard]]:
        manual_dir = None
        if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
            manual_dir = pathlib.Path(dl_manager.manual_dir)
        splits = self.splits(manual_dir)  # pyright: ignore[reportArgumentType]  (see its docstring)
        return {name: _shards(name, split) for name, split in splits.items() if split.count}


def _shards(name: str, split: SplitRecords) -> list[_Shard]:
    """Divide the split into shards, which TFDS writes one after the other."""
    examples = checked(_shown(in_threads(_example, split.records), split.count, name))
    numbered = zip(range(split.count), examples, strict=True)
    return [
        functools.partial(itertools.islice, numbered, _RECORDS_PER_SHARD)
        for _ in range(0, split.count, _RECORDS_PER_SHARD)
    ]


def _shown(items: Iterable[_Item], total: int, name: str) -> Iterator[_Item]:
    """Yield the items, and show on stderr how many of `total` are done."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=name, total=total, unit="picture", dynamic_ncols=True)
        return
    start = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if count == total or now - shown >= _SECONDS_BETWEEN_LINES:
            shown = now
            rate = count / max(now - start, 1e-9)
            left = tqdm.format_interval((total - count) / rate)
            print(
                f"{name}: {count}/{total} pictures, {rate:.0f}/s, left {left}",
                file=sys.stderr,
                flush=True,
            )


def _example(record: Record) -> dict[str, Any]:
    """Convert a record for TFDS, reading and checking its picture."""
    image, name = record.image, record.filename
    if isinstance(image, pathlib.Path):
        name = str(image)
        try:
            image = image.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{name}: the label file lists this picture, but it is missing"
            ) from None
    is_bmp = image.startswith(b"BM")
    formats = (*RECORD_FORMATS, "BMP") if is_bmp else RECORD_FORMATS
    try:
        picture = open_picture(image, name=name, formats=formats)
    except ValueError as error:
        raise ValueError(f"{error}; unpack or download it again") from error
    if is_bmp:
        file = io.BytesIO()
        picture.save(file, "PNG")
        image = file.getvalue()
    return {
        "image": image,
        "attributes": np.asarray(record.attributes, np.uint8),
        "identity": record.identity,
        "camera": record.camera,
        "filename": record.filename,
    }
