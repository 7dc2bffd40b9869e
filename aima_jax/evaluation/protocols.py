"""The published protocols: which images each removes, how it averages, and its rankings.

All have one query per person category of the test split; an image is relevant only to the query of
its own category. A protocol removes an image only from the gallery of that query, so one flag per
image is enough.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from aima_jax.evaluation.metrics import METRICS, irrelevant_above, query_metrics, ranked_in_order
from aima_jax.evaluation.similarity import GalleryFeatures

# The average precision of each protocol, as named in `metrics.query_metrics`.
AVERAGE_PRECISION = {"standard": "mean", "sal": "mean", "asmr": "trapezoidal", "upar": "mean"}
PROTOCOLS = (*AVERAGE_PRECISION, "partial", "absence")  # the last two: `evaluation.partial`


@dataclasses.dataclass(frozen=True)
class GalleryLabels:
    """The labels of a test split, in the order of the gallery's features.

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
            raise ValueError(f"the labels of a gallery must have one length; they have {lengths}")

    def __len__(self) -> int:
        return len(self.category)


def removed_images(
    protocol: str, labels: GalleryLabels, traits: Mapping[str, Any]
) -> Bool[np.ndarray, "gallery"]:
    """Flag the images that a protocol removes from the gallery of their own category's query.

    `standard` (IRRA's code), `asmr` and `upar` remove none. `sal` (SAL's code) removes the images
    of the category that share identity and camera with its representative; on datasets without
    cameras, only the representative. The representative is the category's first image by file
    name, in the query folder if the dataset has one. SAL's code takes the first in directory order,
    which is undefined; the file name is our decision.

    Args:
        protocol: one of `AVERAGE_PRECISION`.
        labels: of the test split.
        traits: of the dataset: "cameras", whether the cameras are known, and "query_folder", the
            folder of the representatives, or None.

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
    """The index of each category's first image by file name, in a folder if one is given."""
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


Scores = Float[np.ndarray, "query gallery"]
Bits = tuple[UInt8[np.ndarray, "query attributes"], UInt8[np.ndarray, "gallery attributes"]]


def evaluate_rankings(
    query_features: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"] | GalleryFeatures,
    query_category: Int[np.ndarray, "query"],
    labels: GalleryLabels,
    protocols: Sequence[str],
    *,
    traits: Mapping[str, Any],
    attributes: Bits | None = None,
    seen: Bool[np.ndarray, "query"] | None = None,
    posterior: Callable[[Scores], Scores] | None = None,
    each: Callable[[Scores], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Rank a gallery for every query and report R1, R5, R10, mAP and mINP by each protocol.

    For the same similarities, the numbers equal `retrieval_metrics`; with `upar`, ties keep the
    gallery's order, and mADM is added (see `ranked_in_order`).

    Args:
        query_features: L2-normalised.
        gallery: L2-normalised features, or a `GalleryFeatures` of them.
        query_category: of each query, all distinct.
        labels: of the gallery.
        protocols: of `AVERAGE_PRECISION`.
        traits: of the dataset, for the rules of `sal`.
        attributes: bits of each query and of each image, for `upar`.
        seen: whether a query's category occurs in training; adds R1 and mAP of both subsets.
        each: is called with the cosines of each group of queries, which are computed only once.
        posterior: turns cosines into log-probabilities; adds their R1 and mAP.

    Returns:
        For each protocol the metrics as fractions of 1, "queries" (evaluated), "skipped_queries"
        (without any relevant image), "gallery" (images), and with `seen` "seen" and "unseen",
        each with R1, mAP and queries, or None if no such query was evaluated; with `posterior`
        "posterior", with R1, mAP, and both subsets again.

    Raises:
        ValueError: sizes or names do not match, a feature is not finite, two queries have one
            category, or no query has a relevant image in some protocol.
    """
    if not protocols:
        raise ValueError(f"no protocol is given; expected some of {', '.join(AVERAGE_PRECISION)}")
    removed = {name: removed_images(name, labels, traits) for name in protocols if name != "upar"}
    gallery = gallery if isinstance(gallery, GalleryFeatures) else GalleryFeatures(gallery)
    if len(query_category) != len(query_features) or len(labels) != gallery.shape[0]:
        raise ValueError(
            f"{len(query_features)} queries and {gallery.shape[0]} images need as many labels; "
            f"found {len(query_category)} and {len(labels)}"
        )
    if len(np.unique(query_category)) < len(query_category):
        raise ValueError("two queries have the same category; a query is one person category")
    if not np.isin(labels.category, query_category).any():
        raise ValueError("no image of the gallery has the category of any query")
    if "upar" in protocols and attributes is None:
        raise ValueError("protocol 'upar' needs the attributes of the queries and of the images")

    # By scoring and protocol, each query's counts of irrelevant images above its relevant ones.
    scorings: dict[str, Callable[[Scores], Scores]] = {"cosine": lambda cosines: cosines}
    if posterior is not None:
        scorings["posterior"] = posterior
    above = {(scoring, name): [] for scoring in scorings for name in protocols}
    adm = {scoring: [] for scoring in scorings}
    for group, cosines in gallery.similarities(query_features):
        if each is not None:
            each(cosines)
        images = [np.flatnonzero(labels.category == c) for c in query_category[group]]
        for scoring, score in scorings.items():
            scores = score(cosines)
            for row, own in zip(scores if removed else (), images, strict=False):
                order, counts = irrelevant_above(row, own)
                for name in removed:
                    above[scoring, name].append(counts[~removed[name][order]])
            if "upar" in protocols and attributes is not None:
                distances = _distances(attributes[0][group], attributes[1])
                for row, own, distance in zip(scores, images, distances, strict=True):
                    counts, value = ranked_in_order(row, own, distance)
                    above[scoring, "upar"].append(counts)
                    adm[scoring].append(value)

    results = {}
    for name in protocols:
        by = {
            scoring: query_metrics(above[scoring, name], average_precision=AVERAGE_PRECISION[name])
            for scoring in scorings
        }
        metrics = METRICS
        if name == "upar":
            metrics += ("mADM",)
            by = {scoring: by[scoring] | {"mADM": np.array(adm[scoring])} for scoring in scorings}
        results[name] = _summary(name, by["cosine"], metrics, seen)
        skipped = len(query_features) - results[name]["queries"]
        results[name] |= {"skipped_queries": skipped, "gallery": gallery.shape[0]}
        if posterior is not None:
            metrics = ("R1", "mAP", *metrics[len(METRICS) :])
            results[name]["posterior"] = _summary(name, by["posterior"], metrics, seen)
    return results


def _distances(
    queries: UInt8[np.ndarray, "query attributes"], images: UInt8[np.ndarray, "gallery attributes"]
) -> Iterator[Float[np.ndarray, "gallery"]]:
    """Yield for each query the number of bits in which each image differs, as float32."""
    queries, images = queries.astype(np.float32), images.astype(np.float32)
    for start in range(0, len(queries), 64):
        block = queries[start : start + 64]
        yield from block.sum(1)[:, None] + (1 - 2 * block) @ images.T


def _summary(
    protocol: str,
    values: Mapping[str, Float[np.ndarray, "query"]],
    names: Iterable[str],
    seen: Bool[np.ndarray, "query"] | None,
) -> dict[str, Any]:
    """Means over the queries with relevant images, and over the seen and unseen ones."""
    evaluated = ~np.isnan(values["R1"])

    def means(names: Iterable[str], queries: Bool[np.ndarray, "query"]) -> dict[str, Any] | None:
        if not queries.any():
            return None
        found = {name: float(values[name][queries].mean()) for name in names}
        return {**found, "queries": int(queries.sum())}

    summary = means(names, evaluated)
    if summary is None:
        raise ValueError(f"by protocol {protocol!r} no query has a relevant image in the gallery")
    if seen is not None:
        summary["seen"] = means(("R1", "mAP"), evaluated & seen)
        summary["unseen"] = means(("R1", "mAP"), evaluated & ~seen)
    return summary
