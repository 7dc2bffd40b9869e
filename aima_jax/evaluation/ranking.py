"""Exact ranks and exact first places at any gallery size, without ever sorting a gallery.

The rank of a relevant image is one more than the count of images above it, and counts add up over
blocks and over devices. Memory is that of one block of similarities and a few numbers per image.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from aima_jax.evaluation.metrics import METRICS, query_metrics
from aima_jax.evaluation.protocols import AVERAGE_PRECISION, GalleryLabels, removed_images
from aima_jax.evaluation.similarity import (
    AXIS,
    BLOCK_SIZE,
    Gallery,
    one_each,
    replicate,
    similarities,
)
from aima_jax.sharding import one_late, replicated

_SIMILARITY_BYTES = 2**23  # of one block on one device, about; more queries, smaller blocks
_COMPARED_AT_ONCE = 64  # images; the loop over them is unrolled
_CHUNK = 32  # neighbouring images that top_k looks at through their maximum


def evaluate_rankings(
    query_features: Float[np.ndarray, "query dim"],
    gallery_features: Float[np.ndarray, "gallery dim"],
    query_category: Int[np.ndarray, "query"],
    labels: GalleryLabels,
    protocols: Sequence[str],
    *,
    dataset: str,
    seen: Bool[np.ndarray, "query"] | None = None,
    block_size: int = BLOCK_SIZE,
    mesh: Mesh | None = None,
) -> dict[str, dict[str, Any]]:
    """Ranks a gallery for every query and reports R1, R5, R10, mAP and mINP by each protocol.

    Given the same similarities, the numbers are those of `retrieval_metrics`. Every block's
    similarities are computed twice, first for the scores of the relevant pairs, then to count what
    lies above them; all protocols share both.

    Args:
        query_features: L2-normalised, as are the gallery's.
        gallery_features: all of them on every host; they may be a memory map.
        query_category: of each query, all different.
        labels: of the gallery.
        protocols: of "standard", "sal" and "asmr".
        dataset: name of the dataset, for the rules of `sal`.
        seen: whether a query's category occurs in training; adds R1 and mAP of both parts.
        block_size: images on one device at once, fewer where there are very many queries.
        mesh: devices to work on, of all hosts; by default those of this host.

    Returns:
        For each protocol the metrics as fractions of 1, "queries" (evaluated), "skipped_queries"
        (without any relevant image), "gallery" (images), and with `seen` "seen" and "unseen",
        each with R1, mAP and queries, or None where no such query was evaluated.

    Raises:
        ValueError: sizes or names that do not fit, a feature that is not finite, two queries of
            one category, or a protocol by which no query has a relevant image.
    """
    removed = {name: removed_images(name, labels, dataset) for name in protocols}
    queries = _checked_queries(query_features, gallery_features.shape)
    if len(query_category) != len(queries) or len(labels) != len(gallery_features):
        raise ValueError(
            f"{len(queries)} queries and {len(gallery_features)} images must have as many labels, "
            f"not {len(query_category)} and {len(labels)}"
        )
    query_of_image = _query_of_image(query_category, labels.category)
    if (query_of_image < 0).all():
        raise ValueError("no image of the gallery has the category of any query")
    block_size = max(1, min(block_size, _SIMILARITY_BYTES // (4 * len(queries))))
    gallery = Gallery(gallery_features, mesh=mesh, block_size=block_size)
    placed = replicate(queries, gallery.mesh)
    own_scores = _own_scores(placed, gallery, query_of_image)

    # One entry for each relevant pair, by query and then from the best score to the worst.
    images = np.flatnonzero(query_of_image >= 0)
    images = images[np.lexsort((-own_scores[images], query_of_image[images]))]
    query, scores = query_of_image[images], own_scores[images]
    above = _count_at_least(placed, gallery, query, scores)
    above -= _own_at_least(query, scores)

    results = {}
    for name in protocols:
        left = ~removed[name][images]
        values = query_metrics(query[left], above[left], len(queries), AVERAGE_PRECISION[name])
        results[name] = _summary(name, values, len(gallery_features), seen)
    return results


def top_k(
    query_features: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"] | Gallery,
    k: int,
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The k images of highest inner product for each query, exactly; ties by lower index.

    Args:
        query_features: L2-normalised.
        gallery: L2-normalised features, or a `Gallery` of them on devices of this host.
        k: how many; all images where there are fewer.

    Returns:
        Scores and indices in the gallery, best first.

    Raises:
        ValueError: sizes that do not fit, or a feature that is not finite.
    """
    queries = _checked_queries(query_features, gallery.shape)
    if k < 1:
        raise ValueError(f"k must be at least 1, it is {k}")
    if not isinstance(gallery, Gallery):
        gallery = Gallery(gallery)
    group = max(1, _SIMILARITY_BYTES // (4 * gallery.block_size))
    groups = [queries[start : start + group] for start in range(0, len(queries), group)]
    parts = [_first_places(part, gallery, min(k, gallery.shape[0])) for part in groups]
    scores, indices = zip(*parts, strict=True)
    return np.concatenate(scores), np.concatenate(indices)


def _checked_queries(
    features: Float[np.ndarray, "query dim"], gallery: tuple[int, ...]
) -> Float[np.ndarray, "query dim"]:
    features = np.asarray(features, np.float32)
    sizes = f"queries are {features.shape}, the gallery is {gallery}"
    if features.ndim != 2 or len(gallery) != 2 or features.shape[1] != gallery[1]:
        raise ValueError(f"features must be [query, dim] and [gallery, dim]: {sizes}")
    if 0 in features.shape or 0 in gallery:
        raise ValueError(f"there is nothing to rank: {sizes}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(f"the features of query {np.argmin(finite)} are not finite")
    return features


def _query_of_image(
    query_category: Int[np.ndarray, "query"], category: Int[np.ndarray, "gallery"]
) -> Int[np.ndarray, "gallery"]:
    """The query of each image's category, -1 where none asks for it."""
    order = np.argsort(query_category)
    ascending = query_category[order]
    if (ascending[1:] == ascending[:-1]).any():
        raise ValueError("two queries have the same category; a query is one person category")
    place = np.minimum(np.searchsorted(ascending, category), len(order) - 1)
    return np.where(ascending[place] == category, order[place], -1).astype(np.int32)


def _own_scores(
    queries: Float[Array, "query dim"], gallery: Gallery, query_of_image: Int[np.ndarray, "gallery"]
) -> Float[np.ndarray, "gallery"]:
    """The similarity of each image to the query of its category."""
    mesh = gallery.mesh

    def blocks_of_scores():
        for block in gallery:
            query = np.zeros(len(block.features), np.int32)
            query[: block.count] = query_of_image[block.start : block.start + block.count]
            yield block.count, _pick(similarities(queries, block, mesh), query, mesh=mesh)

    return np.concatenate(
        [np.asarray(scores)[:count] for count, scores in one_late(blocks_of_scores())]
    )


@functools.partial(jax.jit, static_argnames="mesh")
def _pick(similarity, query, *, mesh):
    picked = jnp.take_along_axis(similarity, query[:, None], axis=1)[:, 0]
    return jax.lax.with_sharding_constraint(picked, replicated(mesh))


def _count_at_least(
    queries: Float[Array, "query dim"],
    gallery: Gallery,
    query: Int[np.ndarray, "pair"],
    scores: Float[np.ndarray, "pair"],
) -> Int[np.ndarray, "pair"]:
    """How many images reach each score with the query that it belongs to; `query` ascends."""
    # Thresholds lie in rows of one query each. A row holds about the mean number of relevant
    # images, so that a few large categories do not make every query as wide as the largest.
    relevant = np.bincount(query)
    width = 2 ** int(np.clip(np.ceil(np.log2(relevant.mean() + 1)), 4, 9))
    rows = -(-relevant // width)
    place = np.arange(len(query)) - (np.cumsum(relevant) - relevant)[query]
    row, column = (np.cumsum(rows) - rows)[query] + place // width, place % width
    thresholds = np.full((rows.sum(), width), np.inf, np.float32)
    thresholds[row, column] = scores
    mesh = gallery.mesh
    query_of_row = replicate(np.repeat(np.arange(len(rows), dtype=np.int32), rows), mesh)
    placed = replicate(thresholds, mesh)

    def totals():
        total = one_each(np.zeros(thresholds.shape, np.int32), mesh)
        for block in gallery:
            similarity = similarities(queries, block, mesh)
            total = _add_counts(total, similarity, placed, query_of_row, mesh=mesh)
            yield total

    for total in one_late(totals()):
        jax.block_until_ready(total)  # or the host runs ahead and fills the memory with blocks
    return np.asarray(_sum(total, mesh=mesh))[row, column]


@functools.partial(jax.jit, static_argnames="mesh")
def _add_counts(total, similarity, thresholds, query_of_row, *, mesh):
    def local(total, similarity, thresholds, query_of_row):
        def compare(step, total):
            start = step * _COMPARED_AT_ONCE
            scores = jax.lax.dynamic_slice_in_dim(similarity, start, _COMPARED_AT_ONCE)
            scores = scores[:, query_of_row]
            # Unrolled, this is one vectorised pass over the thresholds; as a reduction over a
            # third axis XLA's CPU compiler leaves it scalar, ten to thirty times slower.
            for image in range(_COMPARED_AT_ONCE):
                total += scores[image, :, None] >= thresholds
            return total

        steps = len(similarity) // _COMPARED_AT_ONCE
        return jax.lax.fori_loop(0, steps, compare, total[0])[None]

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(split, split, whole, whole),
        out_specs=split,
    )(total, similarity, thresholds, query_of_row)


@functools.partial(jax.jit, static_argnames="mesh")
def _sum(total, *, mesh):
    return jax.lax.with_sharding_constraint(total.sum(0), replicated(mesh))


def _own_at_least(
    query: Int[np.ndarray, "pair"], scores: Float[np.ndarray, "pair"]
) -> Int[np.ndarray, "pair"]:
    """How many of a query's own images reach each of their scores, which fall within a query."""
    ends = np.append((query[1:] != query[:-1]) | (scores[1:] != scores[:-1]), True)
    last_equal = np.flatnonzero(ends)[np.cumsum(ends) - ends]
    first = np.searchsorted(query, query)
    return last_equal - first + 1


def _summary(
    protocol: str,
    values: dict[str, np.ndarray],
    gallery: int,
    seen: Bool[np.ndarray, "query"] | None,
) -> dict[str, Any]:
    evaluated = ~np.isnan(values["R1"])
    if not evaluated.any():
        raise ValueError(f"by protocol {protocol!r} no query has a relevant image in the gallery")

    def means(names: Iterable[str], queries: np.ndarray) -> dict[str, Any] | None:
        if not queries.any():
            return None
        found = {name: float(values[name][queries].mean()) for name in names}
        return {**found, "queries": int(queries.sum())}

    summary = means(METRICS, evaluated)
    summary |= {"skipped_queries": int((~evaluated).sum()), "gallery": gallery}
    if seen is not None:
        summary["seen"] = means(("R1", "mAP"), evaluated & seen)
        summary["unseen"] = means(("R1", "mAP"), evaluated & ~seen)
    return summary


def _first_places(
    queries: Float[np.ndarray, "query dim"], gallery: Gallery, k: int
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The k first places of each query: every device keeps its own, the host merges them."""
    shape, mesh = (len(queries), k), gallery.mesh
    placed = replicate(queries, mesh)

    def states():
        scores = one_each(np.full(shape, -np.inf, np.float32), mesh)
        indices = one_each(np.zeros(shape, np.int32), mesh)
        for block in gallery:
            similarity = similarities(placed, block, mesh)
            scores, indices = _keep_best(scores, indices, similarity, block.start, mesh=mesh)
            yield scores, indices

    for state in one_late(states()):
        jax.block_until_ready(state)  # or the host runs ahead and fills the memory with blocks
    scores, indices = (np.concatenate(np.asarray(part), axis=1) for part in state)
    best = np.lexsort((indices, -scores))[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(indices, best, axis=1)


@functools.partial(jax.jit, static_argnames="mesh")
def _keep_best(scores, indices, similarity, start, *, mesh):
    def local(scores, indices, similarity, start):
        (rows, count), k = similarity.shape, scores.shape[-1]
        # The k best images lie in the k chunks of highest maximum. Chunks, and so candidates, stay
        # in the order of their indices: of equal scores, top_k takes the first.
        chunks = similarity.reshape(rows // _CHUNK, _CHUNK, count)
        _, chosen = jax.lax.top_k(chunks.max(axis=1).T, min(k, rows // _CHUNK))
        chosen = jnp.sort(chosen, axis=1)[:, :, None]
        within, query = jnp.arange(_CHUNK), jnp.arange(count)
        candidates = chunks[chosen, within, query[:, None, None]].reshape(count, -1)
        first = start + jax.lax.axis_index(AXIS) * rows
        places = (first + chosen * _CHUNK + within).reshape(count, -1)
        candidates = jnp.concatenate([scores[0], candidates], axis=1)
        places = jnp.concatenate([indices[0], places], axis=1)
        best, chosen = jax.lax.top_k(candidates, k)
        return best[None], jnp.take_along_axis(places, chosen, axis=1)[None]

    split = PartitionSpec(AXIS)
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(split, split, split, PartitionSpec()),
        out_specs=(split, split),
    )(scores, indices, similarity, start)
