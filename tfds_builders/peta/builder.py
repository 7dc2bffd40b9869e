"""PETA: 19,000 pictures from ten collections, in the person-search split and five random ones."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from aima_jax.attributes import AttributeSchema
from tfds_builders import layout, matlab
from tfds_builders.peta.schema import FILE_NAMES, SCHEMA, SCHEMA_35
from tfds_builders.peta.wording import WORDING
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits

_NAME = "PETA"
_LABELS = "PETA.mat"
_LEVELS = (_NAME, "")
_IMAGES = "images"
# The authors' archive: pictures are numbered in this order of collections, and by file name within
# each.
_ARCHIVES = "PETA dataset"
_COLLECTIONS = {
    "3DPeS": 1_012,
    "CAVIAR4REID": 1_220,
    "CUHK": 4_563,
    "GRID": 1_275,
    "i-LID": 477,
    "MIT": 888,
    "PRID": 1_134,
    "SARC3D": 200,
    "TownCentre": 6_967,
    "VIPeR": 1_264,
}
# Image number, person, collection, and person within the collection come before the labels.
_LABELS_START = 4
_RANDOM_SPLITS = 5

_Rows = Mapping[str, Int[np.ndarray, "rows"]]


@dataclasses.dataclass(frozen=True)
class Labels:
    """The contents of `PETA.mat`, a row for each picture."""

    attributes: UInt8[np.ndarray, "pictures attributes"]
    identity: Int[np.ndarray, "pictures"]
    random_splits: tuple[_Rows, ...]


@dataclasses.dataclass(eq=False)
class PetaConfig(tfds.core.BuilderConfig):
    """The split (`random` counts from 1; 0 is `sal`) and the attributes."""

    random: int = 0
    schema: AttributeSchema = SCHEMA


def _configs() -> list[PetaConfig]:
    sal = PetaConfig(name="sal", description="SAL's person-search split, 105 attributes")
    numbers = range(1, _RANDOM_SPLITS + 1)
    return [
        sal,
        *(
            PetaConfig(
                name=f"random{number}{suffix}",
                description=f"random split {number} of the label file, {schema.size} attributes",
                random=number,
                schema=schema,
            )
            for suffix, schema in (("", SCHEMA), ("_35", SCHEMA_35))
            for number in numbers
        ),
    ]


class Peta(PersonSearchBuilder):
    """PETA (Deng et al., ACM MM 2014); its `sal` split is that of Cao et al. (SAL, ECCV 2020)."""

    name = "peta"
    wording = WORDING
    traits = Traits(cameras=False, query_folder=None, identities=True)
    builder_config: PetaConfig
    BUILDER_CONFIGS = _configs()
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Unpack {_NAME} so that manual_dir holds {_IMAGES}/ with 00001.png to 19000.png, or "
        f"{_ARCHIVES}/ as its authors pack it, and put {_LABELS} beside that folder or above it; "
        f"both may be in a folder {_NAME}/."
    )

    @property
    def schema(self) -> AttributeSchema:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All 105 attributes of the label file or the usual 35, as configured."""
        return self.builder_config.schema

    def splits(self, manual_dir: pathlib.Path) -> dict[str, SplitRecords]:
        """Return train and test, and val in the random splits, in the label file's order."""
        instructions = self.MANUAL_DOWNLOAD_INSTRUCTIONS
        folder, archived = _locate(manual_dir, instructions)
        places = (folder, *folder.parents[:2]) if archived else folder.parents[:2]
        label_file = layout.find_file([place / _LABELS for place in places], instructions)
        labels = read_labels(label_file)
        names = [_file_name(number) for number in range(1, len(labels.identity) + 1)]
        if not archived:
            layout.require_listed(names, folder, label_file)
        elif len(archived) != len(names):
            raise ValueError(
                f"{folder}: {len(archived)} pictures, but {label_file} lists {len(names)}; take "
                "both from the same version of the dataset"
            )
        number = self.builder_config.random
        rows = labels.random_splits[number - 1] if number else sal_split(labels.attributes)

        def record(row: int) -> Record:
            return Record(
                # Numbered in either layout: SAL's protocol depends on the order of names.
                filename=f"{_IMAGES}/{names[row]}",
                image=archived.get(names[row], folder / names[row]),
                attributes=labels.attributes[row, : self.schema.size],
                identity=int(labels.identity[row]),
            )

        return {
            name: SplitRecords(len(chosen), [record(row) for row in chosen])
            for name, chosen in rows.items()
        }


def find_pictures(manual_dir: pathlib.Path, instructions: str) -> Callable[[str], pathlib.Path]:
    """Return a function from a name like "00001.png" to a picture's path, also for other builders.

    Raises:
        FileNotFoundError: neither layout is found.
        ValueError: a collection has the wrong number of pictures.
    """
    folder, archived = _locate(manual_dir, instructions)
    return lambda name: archived.get(name, folder / name)


def _locate(
    manual_dir: pathlib.Path, instructions: str
) -> tuple[pathlib.Path, dict[str, pathlib.Path]]:
    """The picture folder; for the authors' layout, also the numbered pictures' paths."""
    if not any((manual_dir / level / _IMAGES).is_dir() for level in _LEVELS):
        for level in (*_LEVELS, *(f"{level}/{_ARCHIVES}".lstrip("/") for level in _LEVELS)):
            if any((manual_dir / level / name / "archive").is_dir() for name in _COLLECTIONS):
                return manual_dir / level, _numbered(manual_dir / level)
    root, folder = layout.locate(manual_dir, _LEVELS, (_IMAGES,), instructions)
    return root / folder, {}


def _numbered(root: pathlib.Path) -> dict[str, pathlib.Path]:
    paths, wrong = [], []
    for name, expected in _COLLECTIONS.items():
        folder = root / name / "archive"
        found = layout.picture_names(folder) if folder.is_dir() else []
        paths += [folder / picture for picture in found]
        if len(found) != expected:
            wrong.append(f"{name} has {len(found)}, not {expected}")
    if wrong:
        raise ValueError(f"{root}: pictures in archive/: {'; '.join(wrong)}. Unpack {_NAME} again.")
    return {_file_name(number): path for number, path in enumerate(paths, 1)}


def _file_name(number: int) -> str:
    return f"{number:05d}.png"


def sal_split(attributes: UInt8[np.ndarray, "pictures attributes"]) -> _Rows:
    """Return the rows of SAL's train and test, which share no category.

    Categories with one picture are dropped. From the rest, in order of first appearance, numpy's
    legacy generator draws 189 in 209 for training, that is 1,890 of the 2,090.
    """
    _, first, category, count = np.unique(
        attributes, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    kept = np.flatnonzero(count > 1)
    kept = kept[np.argsort(first[kept])]
    generator = np.random.RandomState(1)
    train = kept[generator.choice(len(kept), len(kept) * 189 // 209, replace=False)]
    category = category.ravel()
    return {
        "train": np.flatnonzero(np.isin(category, train)),
        "test": np.flatnonzero(np.isin(category, np.setdiff1d(kept, train))),
    }


def read_labels(path: pathlib.Path) -> Labels:
    """Return labels, people and random splits.

    Raises:
        ValueError: the file is damaged, or it is not `PETA.mat`.
    """
    peta = matlab.read_variables(path, _NAME, ("peta",))["peta"]
    matlab.require_fields(peta, ("data", "attribute", "partion_attribute"), path, _NAME, "peta")
    if tuple(matlab.strings(peta["attribute"], path, "peta.attribute")) != FILE_NAMES:
        raise ValueError(
            f"{path}: the names in peta.attribute are not the {len(FILE_NAMES)} attributes of "
            f"{_NAME}, {FILE_NAMES[0]} to {FILE_NAMES[-1]}"
        )
    data = matlab.integers(peta["data"], path, "peta.data")
    columns = _LABELS_START + len(FILE_NAMES)
    if data.ndim != 2 or data.shape[1] != columns:
        raise ValueError(f"{path}: peta.data has shape {data.shape}; expected {columns} columns")
    pictures = len(data)
    if not np.array_equal(data[:, 0], np.arange(1, pictures + 1)):
        raise ValueError(f"{path}: column 1 of peta.data does not count from 1 to {pictures}")
    partitions = peta["partion_attribute"]
    if len(partitions) != _RANDOM_SPLITS:
        raise ValueError(
            f"{path}: peta.partion_attribute has {len(partitions)} members; expected "
            f"{_RANDOM_SPLITS} splits"
        )
    return Labels(
        attributes=matlab.bits(
            data[:, _LABELS_START:], (pictures, len(FILE_NAMES)), path, "peta.data"
        ),
        identity=data[:, 1],
        random_splits=tuple(
            _random_split(partition, pictures, path, f"peta.partion_attribute {number}")
            for number, partition in enumerate(partitions, 1)
        ),
    )


def _random_split(partition: Any, pictures: int, path: pathlib.Path, where: str) -> _Rows:
    names = ("train", "val", "test")
    matlab.require_fields(partition, names, path, _NAME, where)
    rows = {
        name: np.sort(matlab.integers(partition[name], path, f"{where}.{name}").ravel()) - 1
        for name in names
    }
    drawn = np.concatenate(list(rows.values()))
    if drawn.min() < 0 or drawn.max() >= pictures or len(np.unique(drawn)) != len(drawn):
        raise ValueError(f"{path}: {where} repeats a picture, or has one outside the {pictures}")
    return rows
