"""Similarities of queries with a gallery of any size, and the images that come first.

The gallery is on the devices in blocks of one shape, which all go through the same compiled
product: among the same queries a pair has the same similarity to the last bit in any block, on any
number of devices. So copies of a picture tie exactly.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from aima_jax.sharding import one_ahead

BLOCK_SIZE = 32_768
# At other sizes a CPU's matrix product sums the last rows in another order than the rest.
_ROW_MULTIPLE = 128
_GROUP_BYTES = 2**27  # of the similarities of the queries that are asked at once


class Gallery:
    """The features of a gallery on the devices of this host, to be asked many times.

    Args:
        features: L2-normalised; they may be a memory map. Where the devices share the host's
            memory they may be used in place, so they must not change afterwards.
        devices: of this host; all by default.
        block_size: images on one device at once, rounded up to a multiple of 128; fewer where the
            gallery does not fill a block.

    Raises:
        ValueError: there are no features, or one is not finite.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "gallery dim"],
        *,
        devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  (jax's)
        block_size: int = BLOCK_SIZE,
    ):
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f"a gallery must be [images, dim], it is {list(features.shape)}")
        devices = devices or jax.local_devices()
        mesh = Mesh(np.array(devices), ("gallery",), axis_types=(AxisType.Auto,))
        split = NamedSharding(mesh, PartitionSpec("gallery"))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self.shape = features.shape
        # Powers of two, so that galleries of many sizes share a few compiled programs.
        share = -(-self.shape[0] // len(devices))
        block_size = min(block_size, 2 ** (share - 1).bit_length())
        self.block_size = -(-block_size // _ROW_MULTIPLE) * _ROW_MULTIPLE
        rows = self.block_size * len(devices)
        self._blocks = []
        for start in range(0, self.shape[0], rows):
            part = np.asarray(features[start : start + rows], np.float32)
            _require_finite(part, "image", start)
            padded = np.pad(part, ((0, rows - len(part)), (0, 0)))
            self._blocks.append(jax.block_until_ready(jax.device_put(padded, split)))

    def similarities(
        self, queries: Float[np.ndarray, "query dim"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "group gallery"]]]:
        """Yield groups of queries with their inner products, in full float32.

        The devices work on the next group meanwhile; the memory is that of two groups.

        Raises:
            ValueError: the sizes do not fit, there are no queries, or a feature is not finite.
        """
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.shape[1] or not len(queries):
            raise ValueError(
                f"queries must be [query, {self.shape[1]}], as the gallery is "
                f"{list(self.shape)}; they are {list(queries.shape)}"
            )
        _require_finite(queries, "query", 0)
        size = min(len(queries), max(1, _GROUP_BYTES // (4 * self.shape[0])))

        def products() -> Iterator[tuple[slice, list[Float[Array, "group rows"]]]]:
            for start in range(0, len(queries), size):
                group = slice(start, min(start + size, len(queries)))
                padding = size - (group.stop - start)
                padded = np.pad(queries[group], ((0, padding), (0, 0)))
                placed = jax.device_put(padded, self._everywhere)
                yield group, [_product(placed, block) for block in self._blocks]

        for group, parts in one_ahead(products()):
            rows = np.concatenate([np.asarray(part) for part in parts], axis=1)
            yield group, rows[: group.stop - group.start, : self.shape[0]]


def top_k(
    query_features: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"] | Gallery,
    k: int,
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The k images of highest inner product for each query, exactly; ties by lower index.

    Args:
        query_features: L2-normalised.
        gallery: L2-normalised features, or a `Gallery` of them.
        k: how many; all images where there are fewer.

    Returns:
        Scores and indices in the gallery, best first.

    Raises:
        ValueError: sizes that do not fit, or a feature that is not finite.
    """
    gallery = gallery if isinstance(gallery, Gallery) else Gallery(gallery)
    scores, indices = [], []
    for _, rows in gallery.similarities(query_features):
        for row in rows:
            indices.append(first_places(row, k))
            scores.append(row[indices[-1]])
    return np.stack(scores), np.stack(indices)


def first_places(scores: Float[np.ndarray, "gallery"], k: int) -> Int[np.ndarray, "k"]:
    """Indices of the k highest scores, best first; ties by lower index.

    Raises:
        ValueError: `k` is less than 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, it is {k}")
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")[:k]]


@jax.jit
def _product(queries, features):
    return jnp.einsum("qd,gd->qg", queries, features, precision="highest")


def _require_finite(features: Float[np.ndarray, "rows dim"], what: str, first: int) -> None:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"the features of {what} {first + np.argmin(finite)} are not finite: the training of "
            "the model that made them has failed; take an earlier checkpoint, or train again"
        )
