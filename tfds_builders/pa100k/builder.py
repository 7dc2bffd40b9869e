"""PA-100K: 100,000 pictures with 26 attributes each, and no identities."""

import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from tfds_builders import layout, matlab
from tfds_builders.pa100k.schema import FILE_NAMES, SCHEMA
from tfds_builders.pa100k.wording import WORDING
from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits

_NAME = "PA-100K"
_LEVELS = (_NAME, "")
_LABELS = "annotation.mat"
_FOLDERS = ("release_data/release_data", "release_data", "data")
_SPLITS = ("train", "val", "test")


class Pa100k(PersonSearchBuilder):
    """PA-100K (Liu et al., HydraPlus-Net, ICCV 2017), in its authors' split."""

    name = "pa100k"
    schema = SCHEMA
    wording = WORDING
    traits = Traits(cameras=False, query_folder=None, identities=False)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Unpack {_NAME} so that manual_dir holds {_NAME}/ with the pictures in one of "
        f"{', '.join(_FOLDERS)}, and {_LABELS} in annotation/ or beside that folder."
    )

    def splits(self, manual_dir: pathlib.Path) -> dict[str, SplitRecords]:
        """Return train, val and test, in the label file's order."""
        root, folder = layout.locate(
            manual_dir, _LEVELS, _FOLDERS, self.MANUAL_DOWNLOAD_INSTRUCTIONS
        )
        label_file = layout.find_file(
            [root / "annotation" / _LABELS, root / _LABELS], self.MANUAL_DOWNLOAD_INSTRUCTIONS
        )
        labels = read_labels(label_file)
        listed = [name for names, _ in labels.values() for name in names]
        layout.require_listed(listed, root / folder, label_file)
        return {
            split: SplitRecords(
                len(names),
                [
                    Record(f"{folder}/{name}", root / folder / name, attributes)
                    for name, attributes in zip(names, rows, strict=True)
                ],
            )
            for split, (names, rows) in labels.items()
        }


def find_pictures(manual_dir: pathlib.Path, instructions: str) -> Callable[[str], pathlib.Path]:
    """Return a function from a file name to a picture's path, also for other builders.

    Raises:
        FileNotFoundError: none of the folders exists.
    """
    root, folder = layout.locate(manual_dir, ("PA100k", *_LEVELS), _FOLDERS, instructions)
    return (root / folder).joinpath


def read_labels(
    path: pathlib.Path,
) -> dict[str, tuple[list[str], UInt8[np.ndarray, "pictures attributes"]]]:
    """Return file names and labels of each split.

    Raises:
        ValueError: the file is damaged, or it is not PA-100K's `annotation.mat`.
    """
    variables = [f"{split}_{kind}" for split in _SPLITS for kind in ("images_name", "label")]
    content = matlab.read_variables(path, _NAME, ("attributes", *variables))
    found = tuple(matlab.strings(content["attributes"], path, "attributes"))
    if found != FILE_NAMES:
        raise ValueError(
            f"{path}: attributes are {', '.join(found)}; expected {', '.join(FILE_NAMES)}"
        )
    labels = {}
    for split in _SPLITS:
        where = f"{split}_images_name"
        names = matlab.strings(content[where], path, where)
        for name in names:
            # The name becomes part of a path: do not read outside the folder.
            if pathlib.PureWindowsPath(name).name != name or name in ("", ".", ".."):
                raise ValueError(
                    f"{path}: {where} has {name!r}; expected a bare file name such as 000001.jpg"
                )
        shape = (len(names), len(FILE_NAMES))
        where = f"{split}_label"
        labels[split] = (names, matlab.bits(content[where], shape, path, where))
    every = [name for names, _ in labels.values() for name in names]
    if len(set(every)) != len(every):
        raise ValueError(f"{path}: a picture is listed twice; expected {len(every)} distinct ones")
    return labels
