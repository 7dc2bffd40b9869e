"""The published protocols: what each takes out of the gallery, and how it averages.

All ask one query per person category of the test split; an image is relevant to the query of
its own category and to no other. What a protocol removes is removed from the gallery of the
image's own query only, so one flag for each image says it all.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

# The average precision of each protocol, as `metrics.query_metrics` names it.
AVERAGE_PRECISION = {"standard": "mean", "sal": "mean", "asmr": "trapezoidal", "upar": "mean"}
PROTOCOLS = (*AVERAGE_PRECISION, "partial", "absence")  # the last two: `evaluation.partial`


@dataclasses.dataclass(frozen=True)
class GalleryLabels:
    """What the records of a test split say, in the order of the gallery's features.

    Raises:
        ValueError: the lengths differ.
    """

    category: Int[np.ndarray, "gallery"]
    identity: Int[np.ndarray, "gallery"]
    camera: Int[np.ndarray, "gallery"]
    filename: Shaped[np.ndarray, "gallery"]

    def __post_init__(self):
        lengths = {field.name: len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the labels of a gallery must have one length, they have {lengths}")

    def __len__(self) -> int:
        return len(self.category)


def removed_images(
    protocol: str, labels: GalleryLabels, traits: Mapping[str, Any]
) -> Bool[np.ndarray, "gallery"]:
    """Which images a protocol takes out of the gallery of their own category's query.

    `standard` (IRRA's code), `asmr` and `upar` take out none. `sal` (SAL's code) takes out the
    images of the category that share identity and camera with its representative; on datasets
    without cameras the representative alone. The representative is the category's first image by
    file name, of the folder with queries where the dataset has one. SAL's code takes whatever comes
    first in the directory, which is undefined; the file name is our decision.

    Args:
        protocol: one of `AVERAGE_PRECISION`.
        labels: of the test split.
        traits: of the dataset: "cameras", whether the cameras are known, and "query_folder", the
            folder that the representatives are in, or None.

    Raises:
        ValueError: there is no such protocol, or a category has no image in the query folder.
    """
    if protocol not in AVERAGE_PRECISION:
        raise ValueError(
            f"protocol {protocol!r} is unknown; expected one of {', '.join(AVERAGE_PRECISION)}"
        )
    removed = np.zeros(len(labels), dtype=bool)
    if protocol != "sal":
        return removed
    categories, category = np.unique(labels.category, return_inverse=True)
    representative = _representatives(categories, labels, traits["query_folder"])
    if traits["cameras"]:
        like = representative[category]
        return (labels.identity == labels.identity[like]) & (labels.camera == labels.camera[like])
    removed[representative] = True
    return removed


def _representatives(
    categories: Int[np.ndarray, "category"], labels: GalleryLabels, folder: str | None
) -> Int[np.ndarray, "category"]:
    """The index of each category's first image by file name, in a folder if one is named."""
    order = np.argsort(labels.filename, kind="stable")
    if folder is not None:
        parts = (pathlib.PurePosixPath(path).parent.name for path in labels.filename[order])
        order = order[np.fromiter((part == folder for part in parts), bool, len(order))]
    represented, first = np.unique(labels.category[order], return_index=True)
    missing = np.setdiff1d(categories, represented)
    if missing.size:
        raise ValueError(
            f"protocol 'sal' needs an image of every category in the folder {folder}/: "
            f"categories {missing[:5].tolist()} have none; is the dataset complete?"
        )
    return order[first]
