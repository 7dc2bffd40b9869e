"""Raw datasets as their authors distribute them, with small pictures of noise for theirs."""

import gzip
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import PIL.Image
import scipy.io

from tfds_builders.market1501_attribute import schema as market1501
from tfds_builders.pa100k import schema as pa100k
from tfds_builders.peta import schema as peta

_KINDS = 7  # a file may have 65,000 hard links, and neighbours should differ


def picture(number: int, file_format: str = "JPEG") -> bytes:
    """A small picture, each number another."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 8, 3), np.uint8)
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).save(data, file_format)
    return data.getvalue()


def write_pictures(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Fill a folder with pictures of the given names: hard links to a few files."""
    folder.mkdir(parents=True)
    first: dict[tuple[int, str], pathlib.Path] = {}
    for position, name in enumerate(names):
        kind = position % _KINDS, pathlib.Path(name).suffix
        path = folder / name
        if kind in first:
            os.link(first[kind], path)
        else:
            path.write_bytes(picture(kind[0], "PNG" if kind[1] == ".png" else "JPEG"))
            first[kind] = path


def cells(values: Sequence) -> np.ndarray:
    """A MATLAB column of cells."""
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def market_file_names(shared_data: pathlib.Path) -> dict[str, list[str]]:
    """The real file names of Market-1501, by folder."""
    packed = (shared_data / "annotations/market1501/filenames.txt.gz").read_bytes()
    names: dict[str, list[str]] = {}
    for line in gzip.decompress(packed).decode().split():
        folder, name = line.split("/")
        names.setdefault(folder, []).append(name)
    return names


def market_labels(people: Mapping[str, Sequence[str]]) -> dict:
    """What `market_attribute.mat` holds: young people without anything, black above, blue below."""
    values = dict.fromkeys(market1501.FIELDS, 1) | {"upblack": 2, "downblue": 2}
    halves = {}
    for split, identities in people.items():
        fields = list(market1501.FIELDS) if split == "train" else sorted(market1501.FIELDS)
        halves[split] = {
            name: np.full(len(identities), values[name], np.uint8) for name in fields
        } | {"image_index": cells(list(identities)).T}
    return {"market_attribute": {name: halves[name] for name in ("test", "train")}}


def small_market(folder: pathlib.Path) -> pathlib.Path:
    """Two people to train on, two to test, with a distractor and a false detection."""
    people = {"train": ("0002", "0007"), "test": ("0001", "0003")}
    root = folder / "Market-1501-v15.09.15"
    for name, identities in {
        "bounding_box_train": people["train"],
        "bounding_box_test": ("0000", "-1", *people["test"]),
        "query": people["test"],
    }.items():
        write_pictures(
            root / name,
            [
                f"{identity}_c{camera}s1_000151_01.jpg"
                for identity in identities
                for camera in (1, 6)
            ],
        )
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"not a picture")
    (root / "bounding_box_train" / "._0002_c1s1_000151_01.jpg").write_bytes(b"not a picture")
    scipy.io.savemat(root / "market_attribute.mat", market_labels(people))
    return folder


def peta_labels(pictures: int) -> dict:
    """What `PETA.mat` holds; every two pictures in a row have the same attributes."""
    data = np.zeros((pictures, 109), np.uint16)
    data[:, 0] = np.arange(1, pictures + 1)
    data[:, 1] = np.arange(pictures) // 2 + 40
    category = np.arange(pictures) // 2
    data[:, 4:12] = category[:, None] >> np.arange(8) & 1
    numbers = np.random.default_rng(0).permutation(pictures) + 1
    half, most = pictures // 2, pictures * 3 // 4
    parts = np.empty((5, 1), object)
    for number in range(5):
        parts[number, 0] = {
            "train": numbers[:half, None],
            "val": numbers[half:most, None],
            "test": numbers[most:, None],
        }
    return {
        "peta": {
            "data": data,
            "attribute": cells(peta.FILE_NAMES),
            "selected_attribute": np.arange(5, 40),
            "partion_attribute": parts,
        }
    }


def small_peta(folder: pathlib.Path, pictures: int = 44) -> pathlib.Path:
    """Twenty-two categories of two pictures each."""
    write_pictures(folder / "images", [f"{n:05d}.png" for n in range(1, pictures + 1)])
    scipy.io.savemat(folder / "PETA.mat", peta_labels(pictures))
    return folder


def pa100k_labels(counts: Mapping[str, int]) -> dict:
    """What `annotation.mat` holds: women and men by turns."""
    content: dict = {"attributes": cells(pa100k.FILE_NAMES)}
    start = 1
    for split, count in counts.items():
        content[f"{split}_images_name"] = cells([f"{start + n:06d}.jpg" for n in range(count)])
        labels = np.zeros((count, len(pa100k.FILE_NAMES)), np.uint8)
        labels[:, 0] = np.arange(count) % 2
        labels[:, [2, 4, 14, 22]] = 1
        content[f"{split}_label"] = labels
        start += count
    return content


def small_pa100k(folder: pathlib.Path, **counts: int) -> pathlib.Path:
    """Six pictures to train on, one to validate, three to test, unless told otherwise."""
    counts = counts or {"train": 6, "val": 1, "test": 3}
    root = folder / "PA-100K"
    names = [f"{n:06d}.jpg" for n in range(1, sum(counts.values()) + 1)]
    write_pictures(root / "release_data" / "release_data", names)
    (root / "annotation").mkdir()
    scipy.io.savemat(root / "annotation" / "annotation.mat", pa100k_labels(counts))
    return folder


def folder_contents(folder: pathlib.Path) -> list[str]:
    """Everything below a folder, hidden files and empty folders included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
