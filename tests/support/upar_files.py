"""UPAR's files in small: seven pictures of three domains, and all that can be beside the labels."""

import pathlib

import numpy as np
from stand_ins import write_pictures

from tfds_builders.upar.schema import FILE_NAMES

MARKET = [
    f"Market1501/{f}/0002_c1s1_00045{n}_03.jpg"
    for n, f in enumerate(("bounding_box_train", "query"))
]
PA100K = [f"PA100k/release_data/release_data/00000{n}.jpg" for n in (1, 2, 3)]
PETA = [f"PETA/images/0000{n}.png" for n in (1, 2)]
IMAGES = {
    "train": [MARKET[0], PA100K[0], PA100K[1], PETA[0]],
    "val": [PA100K[2], PETA[1], MARKET[1]],
}
PLACES = {
    "as the challenge's": ("Market1501", "PA100k/release_data/release_data", "PETA/images"),
    "as the others'": ("Market-1501-v15.09.15", "PA-100K/data", "images"),
}
HEADER = "# image," + ",".join(FILE_NAMES)


def labels(split):
    """Bits of each picture: the last two of a split have the same."""
    rows = np.random.default_rng(len(IMAGES[split])).integers(0, 2, (len(IMAGES[split]), 40))
    rows[-1] = rows[-2]
    return rows


def _lines(images, rows):
    return [",".join([image, *map(str, row)]) for image, row in zip(images, rows, strict=True)]


def write(path, header, rows):
    """A file of lines, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*header, *rows]) + "\n")


def small_upar(folder, place="as the challenge's", layout="{}.csv"):
    """The pictures and labels, where the challenge or the other builders have them."""
    market, pa100k, peta = PLACES[place]
    for name in ("bounding_box_train", "query"):
        write_pictures(folder / market / name, [pathlib.Path(i).name for i in MARKET if name in i])
    write_pictures(folder / pa100k, [pathlib.Path(image).name for image in PA100K])
    write_pictures(folder / peta, [pathlib.Path(image).name for image in PETA])
    for split, images in IMAGES.items():
        write(
            folder / "annotations" / layout.format(split), [HEADER], _lines(images, labels(split))
        )
    return folder


def beside(folder):
    """queries.csv and ids.csv of both splits, as they should be."""
    for split, images in IMAGES.items():
        rows = labels(split).tolist()
        queries = sorted(set(map(tuple, rows)))
        task = folder / "annotations" / "task2" / split
        write(
            task / "queries.csv",
            ["# " + ",".join(FILE_NAMES)],
            [",".join(map(str, q)) for q in queries],
        )
        ids = [
            f"{image},{queries.index(tuple(row))}" for image, row in zip(images, rows, strict=True)
        ]
        write(task / "ids.csv", [], ids)
    return folder
