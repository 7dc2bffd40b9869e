"""Market-1501 Attribute: 751 people to train on, 750 others to search for."""

import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import UInt8

from tfds_builders import layout, matlab
from tfds_builders.market1501_attribute.schema import FIELDS, SCHEMA
from tfds_builders.market1501_attribute.wording import WORDING
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits

_NAME = "Market-1501"
_ROOT = "Market-1501-v15.09.15"
_LEVELS = (_ROOT, _NAME, "")
_LABELS = "market_attribute.mat"
_FOLDERS = {"train": ("bounding_box_train",), "test": ("bounding_box_test", "query")}
# Pictures of labelled people; the test folder has another 6,617.
_PICTURES = {"bounding_box_train": 12_936, "bounding_box_test": 13_115, "query": 3_368}
_PEOPLE = {"train": 751, "test": 750}
# Distractors and false detections of the test folder.
_NOBODY = ("0000", "-1")
_IDENTITY = re.compile(r"\d{4}", re.A)
# Some original names end in ".jpg.jpg".
_FILE_NAME = re.compile(r"(?P<identity>\d{4}|-1)_c(?P<camera>\d)s\d_\d{6}_\d{2}(\.jpg){1,2}", re.A)

# A person's attributes by identity, as the file names spell it.
_Labels = dict[str, UInt8[np.ndarray, "attributes"]]


class Market1501Attribute(PersonSearchBuilder):
    """Market-1501 (Zheng et al., ICCV 2015), attributes by Lin et al. (Pattern Recognition 2019).

    A person's attributes hold for all of the person's pictures. Test is the gallery and the queries
    of re-identification together, without distractors.
    """

    name = "market1501_attribute"
    schema = SCHEMA
    wording = WORDING
    traits = Traits(cameras=True, query_folder="query", identities=True)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Unpack {_NAME} so that manual_dir holds {_ROOT}/ with the folders bounding_box_train, "
        f"bounding_box_test and query, and put {_LABELS} beside them or into attribute/."
    )

    def splits(self, manual_dir: pathlib.Path) -> dict[str, SplitRecords]:
        """Return train and test, by folder and file name."""
        root, _ = layout.locate(
            manual_dir, _LEVELS, _FOLDERS["train"], self.MANUAL_DOWNLOAD_INSTRUCTIONS
        )
        places = (root, root / "attribute", root.parent, root.parent / "attribute")
        label_file = layout.find_file(
            [place / _LABELS for place in places], self.MANUAL_DOWNLOAD_INSTRUCTIONS
        )
        labels = read_labels(label_file)
        complete = {name: len(people) for name, people in labels.items()} == _PEOPLE
        splits = {}
        for name, folders in _FOLDERS.items():
            records = [
                record
                for folder in folders
                for record in _records(root / folder, labels[name], label_file, complete)
            ]
            _require_everybody(records, labels[name], label_file, folders)
            splits[name] = SplitRecords(len(records), records)
        return splits


def find_pictures(manual_dir: pathlib.Path, instructions: str) -> Callable[[str], pathlib.Path]:
    """Return a function from folder and file name to a picture's path, also for other builders.

    Raises:
        FileNotFoundError: none of the folders exists.
    """
    levels = ("Market1501", *_LEVELS)
    root, _ = layout.locate(manual_dir, levels, tuple(_PICTURES), instructions)
    return root.joinpath


def read_labels(path: pathlib.Path) -> dict[str, _Labels]:
    """Return each person's attributes in train and test.

    Raises:
        ValueError: the file is damaged, or it is not `market_attribute.mat`.
    """
    variable = "market_attribute"
    halves = matlab.read_variables(path, _NAME, (variable,))[variable]
    matlab.require_fields(halves, tuple(_FOLDERS), path, _NAME, variable)
    return {name: _labels(halves[name], path, f"{variable}.{name}") for name in _FOLDERS}


def _labels(half: Mapping[str, np.ndarray], path: pathlib.Path, where: str) -> _Labels:
    matlab.require_fields(half, (*FIELDS, "image_index"), path, _NAME, where)
    identities = matlab.strings(half["image_index"], path, f"{where}.image_index")
    if len(set(identities)) != len(identities) or not all(map(_IDENTITY.fullmatch, identities)):
        raise ValueError(
            f"{path}: {where}.image_index repeats a person, or has an ID that is not four digits"
        )
    people = {identity: np.zeros(SCHEMA.size, np.uint8) for identity in identities}
    for field, bit_of_code in FIELDS.items():
        codes = matlab.integers(half[field], path, f"{where}.{field}")
        if codes.size != len(identities):
            raise ValueError(
                f"{path}: {where}.{field} has {codes.size} values for {len(identities)} people"
            )
        for identity, code in zip(identities, codes.ravel().tolist(), strict=True):
            if code not in bit_of_code:
                raise ValueError(
                    f"{path}: {where}.{field} is {code!r} for {identity}; expected one of "
                    f"{', '.join(map(str, bit_of_code))}"
                )
            bit = bit_of_code[code]
            if bit is not None:
                people[identity][SCHEMA.names.index(bit)] = 1
    return people


def _records(
    folder: pathlib.Path, labels: _Labels, label_file: pathlib.Path, complete: bool
) -> list[Record]:
    """The folder's pictures of labelled people; their number is checked if `complete`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected it beside bounding_box_train")
    records = []
    for name in layout.picture_names(folder):
        match = _FILE_NAME.fullmatch(name)
        if not match:
            raise ValueError(
                f"{folder / name}: the file name does not parse; expected one like "
                "0002_c1s1_000451_03.jpg (identity, camera and sequence, frame, detection)"
            )
        identity = match["identity"]
        if identity in _NOBODY and folder.name == "bounding_box_test":
            continue
        if identity not in labels:
            raise ValueError(
                f"{folder / name}: identity {identity} has no labels in {label_file}; expected "
                f"one of its {len(labels)} people"
            )
        records.append(
            Record(
                filename=f"{folder.name}/{name}",
                image=folder / name,
                attributes=labels[identity],
                identity=int(identity),
                camera=int(match["camera"]),
            )
        )
    expected = _PICTURES[folder.name]
    if complete and len(records) != expected:
        raise ValueError(
            f"{folder}: {len(records)} pictures of labelled people; expected {expected}. Unpack "
            f"{_NAME} again."
        )
    return records


def _require_everybody(
    records: list[Record], labels: _Labels, label_file: pathlib.Path, folders: tuple[str, ...]
) -> None:
    seen = {record.identity for record in records}
    missing = [identity for identity in labels if int(identity) not in seen]
    if missing:
        raise ValueError(
            f"{label_file}: {len(labels)} people are labelled; {len(missing)} of them have no "
            f"picture in {' or '.join(folders)}, the first of them {missing[0]}"
        )
