"""Rank-k, mAP and mINP, with ties that never flatter."""

import numpy as np
from jaxtyping import Bool, Float, Int

METRICS = ("R1", "R5", "R10", "mAP", "mINP")


def retrieval_metrics(
    similarity: Float[np.ndarray, "query gallery"],
    relevant: Bool[np.ndarray, "query gallery"],
    *,
    ignored: Bool[np.ndarray, "query gallery"] | None = None,
    average_precision: str = "mean",
) -> dict[str, float]:
    """R1, R5, R10, mAP and mINP of a similarity matrix, as fractions of 1.

    A relevant image ranks behind every irrelevant one of exactly the same similarity. A query with
    nothing relevant left is left out of the means.

    Args:
        similarity: higher is better; compared in its own precision.
        relevant: which images are correct for which query.
        ignored: images taken out of a query's gallery, relevant or not.
        average_precision: as in `query_metrics`.

    Raises:
        ValueError: shapes differ, a similarity is NaN, or no query has a relevant image.
    """
    similarity, relevant = np.asarray(similarity), np.asarray(relevant, dtype=bool)
    ignored = np.zeros_like(relevant) if ignored is None else np.asarray(ignored, dtype=bool)
    if similarity.ndim != 2 or not similarity.shape == relevant.shape == ignored.shape:
        raise ValueError(
            "similarity, relevant and ignored must have one shape [query, gallery], they have "
            f"{similarity.shape}, {relevant.shape} and {ignored.shape}"
        )
    # Half precisions are widened, which is exact: numpy does not sort all of them.
    similarity = similarity.astype(np.result_type(similarity.dtype, np.float32), copy=False)

    query, above = [], []
    for row, (scores, hit, out) in enumerate(zip(similarity, relevant, ignored, strict=True)):
        if np.isnan(scores).any():
            raise ValueError(f"the similarities of query {row} contain NaN")
        irrelevant = np.sort(scores[~hit & ~out])
        descending = np.sort(scores[hit & ~out])[::-1]
        above.append(len(irrelevant) - np.searchsorted(irrelevant, descending, side="left"))
        query.append(np.full(len(descending), row))
    values = query_metrics(
        np.concatenate([*query, np.empty(0, np.int64)]),
        np.concatenate([*above, np.empty(0, np.int64)]),
        len(similarity),
        average_precision,
    )
    evaluated = ~np.isnan(values["R1"])
    if not evaluated.any():
        raise ValueError("no query has a relevant image left in the gallery")
    return {name: float(values[name][evaluated].mean()) for name in METRICS}


def query_metrics(
    query: Int[np.ndarray, "pair"],
    above: Int[np.ndarray, "pair"],
    queries: int,
    average_precision: str = "mean",
) -> dict[str, Float[np.ndarray, "query"]]:
    """The metrics of each query, from its relevant images alone; NaN for a query without any.

    AP averages a precision over the hits: "mean" takes the precision at the hit (IRRA's code),
    "trapezoidal" its mean with the precision just before the hit, which is 1 at rank 1 (ASMR's
    code). mINP is the number of relevant images over the rank of the last (IRRA's code).

    Args:
        query: of each pair of a query and a relevant image, sorted.
        above: number of irrelevant images ranked before that image; ascending within a query.
        queries: number of queries.
        average_precision: "mean" or "trapezoidal".
    """
    relevant = np.bincount(query, minlength=queries)
    last = np.cumsum(relevant) - 1
    first = last - relevant + 1
    hits = np.arange(len(query)) - first[query] + 1
    ranks = above + hits
    precision = hits / ranks
    if average_precision == "trapezoidal":
        before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
        precision = (precision + before) / 2
    elif average_precision != "mean":
        raise ValueError(
            f'average_precision must be "mean" or "trapezoidal", it is {average_precision!r}'
        )

    found = relevant > 0
    metrics = {name: np.full(queries, np.nan) for name in METRICS}
    for name, k in (("R1", 1), ("R5", 5), ("R10", 10)):
        metrics[name][found] = ranks[first[found]] <= k
    sums = np.bincount(query, weights=precision, minlength=queries)
    metrics["mAP"][found] = sums[found] / relevant[found]
    metrics["mINP"][found] = relevant[found] / ranks[last[found]]
    return metrics
