"""Rank-k, mAP, mINP and precision at k, with pessimistic ties; and their chance levels."""

import numpy as np
from jaxtyping import Array, Bool, Float, Int

METRICS = ("R1", "R5", "R10", "mAP", "mINP")


def retrieval_metrics(
    similarity: Float[np.ndarray | Array, "query gallery"],
    relevant: Bool[np.ndarray | Array, "query gallery"],
    *,
    ignored: Bool[np.ndarray | Array, "query gallery"] | None = None,
    average_precision: str = "mean",
) -> dict[str, float]:
    """R1, R5, R10, mAP and mINP of a similarity matrix, as fractions of 1.

    A relevant image ranks after every irrelevant image of exactly the same similarity. A query
    without relevant images is excluded from the means.

    Args:
        similarity: higher is better; compared in its own precision.
        relevant: which images are correct for which query.
        ignored: images removed from a query's gallery, relevant or not.
        average_precision: as in `query_metrics`.

    Raises:
        ValueError: shapes differ, a similarity is NaN, or no query has a relevant image.
    """
    similarity, relevant = np.asarray(similarity), np.asarray(relevant, dtype=bool)
    ignored = np.zeros_like(relevant) if ignored is None else np.asarray(ignored, dtype=bool)
    if similarity.ndim != 2 or not similarity.shape == relevant.shape == ignored.shape:
        raise ValueError(
            "similarity, relevant and ignored must have the same shape [query, gallery]; they have "
            f"{similarity.shape}, {relevant.shape} and {ignored.shape}"
        )
    # Widen half precisions, which is exact: numpy cannot sort all of them.
    similarity = similarity.astype(np.result_type(similarity.dtype, np.float32), copy=False)

    above = []
    for row, (scores, hit, out) in enumerate(zip(similarity, relevant, ignored, strict=True)):
        if np.isnan(scores).any():
            raise ValueError(f"the similarities of query {row} contain NaN")
        above.append(irrelevant_above(scores[~out], np.flatnonzero(hit[~out]))[1])
    values = query_metrics(above, average_precision=average_precision)
    evaluated = ~np.isnan(values["R1"])
    if not evaluated.any():
        raise ValueError("no query has a relevant image in the gallery")
    return {name: float(values[name][evaluated].mean()) for name in METRICS}


def irrelevant_above(
    scores: Float[np.ndarray, "gallery"], relevant: Int[np.ndarray, "images"]
) -> tuple[Int[np.ndarray, "images"], Int[np.ndarray, "images"]]:
    """Return the relevant images, best first, and how many irrelevant ones score at least as high.

    Args:
        scores: of one query.
        relevant: indices of the relevant images, all distinct.
    """
    order = relevant[np.argsort(-scores[relevant], kind="stable")]
    own = scores[order]
    if not own.size:
        return order, np.zeros(0, np.int64)
    others = np.ones(len(scores), bool)
    others[relevant] = False
    reached = np.sort(scores[others & (scores >= own[-1])])
    return order, len(reached) - np.searchsorted(reached, own, side="left")


def query_metrics(
    above: list[Int[np.ndarray, "_"]],
    *,
    average_precision: str = "mean",
    precision_at: tuple[int, ...] = (),
) -> dict[str, Float[np.ndarray, "query"]]:
    """The metrics of each query from the ranks of its relevant images; NaN for a query without any.

    AP averages a precision over the hits: "mean" takes the precision at the hit (IRRA's code),
    "trapezoidal" its mean with the precision just before the hit, which is 1 at rank 1 (ASMR's
    code). mINP is the number of relevant images over the rank of the last (IRRA's code).

    Args:
        above: for each query the number of irrelevant images ranked before each relevant image,
            ascending.
        average_precision: "mean" or "trapezoidal".
        precision_at: values of k for P<k>, the share of hits among the first k images.
    """
    if average_precision not in ("mean", "trapezoidal"):
        raise ValueError(
            f'average_precision is {average_precision!r}; expected "mean" or "trapezoidal"'
        )
    names = (*METRICS, *(f"P{k}" for k in precision_at))
    metrics = {name: np.full(len(above), np.nan) for name in names}
    for query, counts in enumerate(above):
        if not len(counts):
            continue
        hits = np.arange(1, len(counts) + 1)
        ranks = counts + hits
        precision = hits / ranks
        if average_precision == "trapezoidal":
            before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
            precision = (precision + before) / 2
        for k in (1, 5, 10):
            metrics[f"R{k}"][query] = ranks[0] <= k
        metrics["mAP"][query] = precision.mean()
        metrics["mINP"][query] = len(counts) / ranks[-1]
        for k in precision_at:
            metrics[f"P{k}"][query] = np.searchsorted(ranks, k, side="right") / k
    return metrics


def ranked_in_order(
    scores: Float[np.ndarray, "gallery"],
    relevant: Int[np.ndarray, "images"],
    distances: Float[np.ndarray, "gallery"],
) -> tuple[Int[np.ndarray, "images"], float]:
    """Return one query's counts of irrelevant images and ADM, as protocol `upar` defines them.

    Equal scores keep the gallery's order, as in the challenge's stable sort. The attribute distance
    metric (ADM) is the mean, over the ranks r of the relevant images, of the mean worth of the
    first r images. With d the distances, S their sum and m their minimum over N images, an image's
    worth is max(0, S - N·d) / (S - N·m), or 1 if S = N·m: integers until the last division.

    Args:
        scores: of one query; higher is better.
        relevant: indices of the relevant images, ascending.
        distances: number of bits in which each image differs from the query.

    Returns:
        The number of irrelevant images ranked before each relevant one, ascending; and ADM, NaN
        if no image is relevant.
    """
    if not len(relevant):
        return np.zeros(0, np.int64), float("nan")
    order = relevant[np.argsort(-scores[relevant], kind="stable")]
    keys, all_keys = -scores[order], -scores
    # For each image, the first relevant image ranked equal to it or below it.
    place = np.searchsorted(keys, all_keys)
    tied = np.flatnonzero(keys[np.minimum(place, len(keys) - 1)] == all_keys)
    place[tied] = np.searchsorted(
        np.searchsorted(keys, keys) * len(scores) + order, place[tied] * len(scores) + tied
    )
    ranks = np.bincount(place, minlength=len(order) + 1)[:-1].cumsum()
    distances = distances.astype(np.float64)  # integers far below 2**53: sums are exact
    worth = np.maximum(distances.sum() - len(scores) * distances, 0)
    best = worth.max()
    if best == 0:  # all are at the same distance
        worth, best = np.ones_like(worth), 1
    sums = np.bincount(place, worth, len(order) + 1)[:-1].cumsum()
    return ranks - np.arange(1, len(ranks) + 1), float((sums / ranks).mean() / best)


def random_ranking(relevant: Int[np.ndarray, "query"], gallery: int) -> dict[str, float]:
    """Expected Rank-1 and mAP of a random ranking, over queries with relevant images.

    With R relevant among N, Rank-1 is R/N, and the average precision is
    (H_N + (R-1)/(N-1) · (N - H_N)) / N with the harmonic number H_N: rank k has a relevant image
    with probability R/N, and then the k-1 ranks before it have (k-1)(R-1)/(N-1) others.

    Args:
        relevant: number of relevant images of each query.
        gallery: number of images ranked.
    """
    relevant = relevant[relevant > 0]
    harmonic = np.sum(1.0 / np.arange(1, gallery + 1))
    others = (relevant - 1) / max(gallery - 1, 1)
    precision = (harmonic + others * (gallery - harmonic)) / gallery
    return {"R1": float(np.mean(relevant / gallery)), "mAP": float(np.mean(precision))}
