"""An open prepared dataset: labels in memory, pictures in ArrayRecord files; its categories."""

import hashlib
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped, UInt8

from aima_jax.attributes import AttributeSchema
from aima_jax.data.pictures import RECORD_FORMATS, read_pixels
from aima_jax.data.prepared import load_labels, read_verified
from aima_jax.text import Wording


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures of people with their labels, in the order of the records.

    Attributes:
        dataset: its name, with the builder's config.
        split: "train", "val" or "test".
        schema: the meaning of the attributes.
        wording: their words.
        traits: {"cameras": bool, "query_folder": str or None, "identities": bool}.
        attributes: bits of the schema.
        identity: the dataset's number for the person; -1 if unknown.
        camera: the dataset's number for the camera; -1 if unknown.
        filename: path below the dataset's root.
        checksum: of the records; the same wherever the dataset is prepared.
    """

    dataset: str
    split: str
    schema: AttributeSchema
    wording: Wording
    traits: Mapping[str, Any]
    attributes: UInt8[np.ndarray, "images attributes"]
    identity: Int32[np.ndarray, "images"]
    camera: Int32[np.ndarray, "images"]
    filename: Shaped[np.ndarray, "images"]
    checksum: str
    _pictures: "_Pictures"
    _records: Int[np.ndarray, "images"]

    def __len__(self) -> int:
        return len(self._records)

    def bytes(self, index: int) -> bytes:
        """Return a picture's stored bytes, JPEG or PNG.

        Raises:
            ValueError: the record cannot be read.
        """
        try:
            return self._pictures[int(self._records[index])]
        # ArrayRecord and TFDS do not document what they raise.
        except Exception as error:
            raise ValueError(f"{self._name(index)}: its record cannot be read ({error})") from error

    def images(
        self,
        indices: Int[np.ndarray, "batch"],
        image_size: tuple[int, int],
        out: UInt8[np.ndarray, "batch height width 3"] | None = None,
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Decode pictures and resize them to `image_size`, height and width; into `out` if given.

        Raises:
            ValueError: a picture cannot be read or decoded; the message names it.
        """
        if out is None:
            out = np.empty((len(indices), *image_size, 3), np.uint8)
        for image, index in zip(out, indices, strict=True):
            data, name = self.bytes(int(index)), self._name(int(index))
            read_pixels(data, image_size, name=name, formats=RECORD_FORMATS, out=image)
        return out

    def take(self, indices: Int[np.ndarray, "subset"]) -> "Split":
        """Return the pictures of `indices`, in their order; the checksum identifies them."""
        records = self._records[indices]
        digest = hashlib.sha256(self.checksum.encode() + records.astype("<i8").tobytes())
        return replace(
            self,
            attributes=self.attributes[indices],
            identity=self.identity[indices],
            camera=self.camera[indices],
            filename=self.filename[indices],
            checksum=digest.hexdigest(),
            _records=records,
        )

    def _name(self, index: int) -> str:
        return f"picture {index} of {self.dataset} {self.split}, {self.filename[index]}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared dataset, as its manifest describes it.

    Attributes:
        folder: its folder.
        name: with the builder's config.
        schema, wording, traits: as in `Split`.
        counts: pictures in each split.
        contents: checksum of each split's records.
    """

    folder: pathlib.Path
    name: str
    schema: AttributeSchema
    wording: Wording
    traits: Mapping[str, Any]
    counts: Mapping[str, int]
    contents: Mapping[str, str]

    def has(self, split: str) -> bool:
        """Return whether the split exists and is not empty."""
        return bool(self.counts.get(split))

    def split(self, split: str) -> Split:
        """Return "train", "val" or "test".

        Raises:
            ValueError: there is no such split, or it is empty.
        """
        if not self.has(split):
            found = (f"{name} with {count} pictures" for name, count in self.counts.items())
            raise ValueError(
                f"{self.folder}: no pictures for the split {split!r}; found {', '.join(found)}"
            )
        return Split(
            dataset=self.name,
            split=split,
            schema=self.schema,
            wording=self.wording,
            traits=self.traits,
            **load_labels(self.folder, split),
            checksum=self.contents[split],
            _pictures=_Pictures(self.folder, split),
            _records=np.arange(self.counts[split]),
        )


def open_dataset(folder: pathlib.Path) -> Dataset:
    """Open a prepared dataset after checking all its files against the manifest.

    A process checks them only once, however often it opens the dataset.

    Args:
        folder: as returned by `prepared_folder`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is missing or damaged, or an earlier version wrote the folder.
    """
    manifest = read_verified(folder)
    return Dataset(
        folder=folder,
        name=manifest["dataset"],
        schema=AttributeSchema.from_dict(manifest["schema"]),
        wording=Wording.from_dict(manifest["wording"]),
        traits=manifest["traits"],
        counts=manifest["counts"],
        contents=manifest["contents"],
    )


def categories(
    attributes: UInt8[np.ndarray, "images attributes"],
) -> tuple[UInt8[np.ndarray, "category attributes"], Int32[np.ndarray, "images"]]:
    """Return the distinct vectors in lexicographic order, and the category of each image."""
    table, category = np.unique(attributes, axis=0, return_inverse=True)
    return table, category.reshape(-1).astype(np.int32)


def hold_out_categories(split: Split, count: int, *, seed: int) -> tuple[Split, Split]:
    """Split off all pictures of `count` random categories: return the rest and the split-off part.

    Raises:
        ValueError: the split has no more than `count` categories.
    """
    table, category = categories(split.attributes)
    if not 0 < count < len(table):
        raise ValueError(
            f"cannot hold out {count} of the {len(table)} categories of {split.dataset} "
            f"{split.split}; expected 1 to {len(table) - 1}"
        )
    drawn = np.random.default_rng(seed).choice(len(table), count, replace=False)
    is_held_out = np.isin(category, drawn)
    return split.take(np.flatnonzero(~is_held_out)), split.take(np.flatnonzero(is_held_out))


class _Pictures:
    """The encoded pictures of a split, by record number."""

    def __init__(self, folder: pathlib.Path, split: str):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        builder: Any = tfds.builder_from_directory(folder)
        self._source = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        proto: Any = tf_example_pb2  # its classes are made at run time
        self._parse = proto.Example.FromString

    def __getitem__(self, record: int) -> bytes:
        # TFDS's own feature decoder takes four times as long (benchmarks/input_pipeline.py).
        example = self._parse(self._source[record])
        return example.features.feature["image"].bytes_list.value[0]
