"""A split of a prepared dataset: labels in memory, pictures in ArrayRecord files."""

import hashlib
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped, UInt8

from aima_jax.attributes import AttributeSchema
from aima_jax.data.pictures import RECORD_FORMATS, read_pixels
from aima_jax.text import Wording
from tfds_builders import prepared


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures of people with their labels, in the order of the records.

    Attributes:
        dataset: its name, with the builder's config.
        split: "train", "val" or "test".
        schema: what the attributes mean.
        wording: how they are put into words.
        traits: {"cameras": bool, "query_folder": str or None, "identities": bool}.
        attributes: bits of the schema.
        identity: who it is, as the dataset numbers people; -1 where unknown.
        camera: which camera took it; -1 where unknown.
        filename: path below the dataset's root.
        checksum: of the records: the same wherever the dataset is prepared.
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
        """A picture as it is stored, JPEG or PNG.

        Raises:
            ValueError: the record cannot be read.
        """
        try:
            return self._pictures[int(self._records[index])]
        # ArrayRecord and TFDS do not say what they raise.
        except Exception as error:
            raise ValueError(f"{self._name(index)}: its record cannot be read ({error})") from error

    def images(
        self,
        indices: Int[np.ndarray, "batch"],
        image_size: tuple[int, int],
        out: UInt8[np.ndarray, "batch height width 3"] | None = None,
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Decodes pictures and resizes them to `image_size`, height and width; into `out` if given.

        Raises:
            ValueError: naming the picture that cannot be read or decoded.
        """
        if out is None:
            out = np.empty((len(indices), *image_size, 3), np.uint8)
        for image, index in zip(out, indices, strict=True):
            name = self._name(index)
            read_pixels(self.bytes(index), image_size, name=name, formats=RECORD_FORMATS, out=image)
        return out

    def take(self, indices: Int[np.ndarray, "subset"]) -> "Split":
        """Some of the pictures, in the order of `indices`; the checksum tells which."""
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


def load_split(folder: pathlib.Path, split: str) -> Split:
    """Opens a split of a prepared dataset, after all its files were checked against the manifest.

    Args:
        folder: as `tfds_builders.prepare` returns it.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is missing or damaged, or the split does not exist or is empty.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a prepared dataset")
    manifest = prepared.verify(folder)
    counts = manifest["counts"]
    if not counts.get(split):
        found = ", ".join(f"{name} with {count} pictures" for name, count in counts.items())
        raise ValueError(f"{folder}: no pictures for the split {split!r}; there is {found}")
    labels = prepared.read_labels(folder, split)
    return Split(
        dataset=manifest["dataset"],
        split=split,
        schema=AttributeSchema.from_dict(manifest["schema"]),
        wording=Wording.from_dict(manifest["wording"]),
        traits=manifest["traits"],
        attributes=labels["attributes"],
        identity=labels["identity"],
        camera=labels["camera"],
        filename=labels["filename"],
        checksum=manifest["contents"][split],
        _pictures=_Pictures(folder, split),
        _records=np.arange(counts[split]),
    )


def has_split(folder: pathlib.Path, split: str) -> bool:
    """Whether a prepared dataset has a split, with pictures in it."""
    return bool(prepared.read_manifest(folder)["counts"].get(split))


class _Pictures:
    """The encoded pictures of a split's records, by the record's number."""

    def __init__(self, folder: pathlib.Path, split: str):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        builder = tfds.builder_from_directory(folder)
        self._source = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        self._parse = tf_example_pb2.Example.FromString

    def __getitem__(self, record: int) -> bytes:
        # TFDS's own decoder of features takes longer for this than reading the record does.
        example = self._parse(self._source[record])
        return example.features.feature["image"].bytes_list.value[0]
