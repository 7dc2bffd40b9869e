"""Similarities of queries with a gallery of any size, and the top images.

The gallery is on the devices in blocks of one shape, which all use the same compiled product: for
the same queries, a pair's similarity is bitwise the same in any block, on any number of devices. So
copies of a picture tie exactly.

The top k are found on the devices: they are in the k groups of adjacent images with the highest
maxima, since an image in any other group has k images before it. Only those groups are searched.
"""

import functools
import os
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from aima_jax.sharding import one_ahead

BLOCK_SIZE = 32_768
# At other sizes, a CPU's matrix product sums the last rows in a different order.
_ROW_MULTIPLE = 128
_GROUP_BYTES = 2**27  # of the similarities of a group of queries


class GalleryFeatures:
    """The features of a gallery on the devices of this host, for many queries.

    Args:
        features: L2-normalised; any array that can be sliced, as a memory map. Where the devices
            share the host's memory they may be used in place, so they must not change afterwards.
        devices: of this host; all by default.
        block_size: images on one device at once, rounded up to a multiple of 128; fewer where the
            gallery does not fill a block.
        resident: keep them on the devices between queries, as far as they fit by default. Otherwise
            each block is read again for each group of queries.

    Raises:
        ValueError: there are no features, or one is not finite.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "gallery dim"],
        *,
        devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  (jax's)
        block_size: int = BLOCK_SIZE,
        resident: bool | None = None,
    ):
        if len(features.shape) != 2 or 0 in features.shape:
            raise ValueError(f"a gallery has shape {list(features.shape)}; expected [images, dim]")
        devices = devices or jax.local_devices()
        self._mesh = Mesh(np.array(devices), ("gallery",), axis_types=(AxisType.Auto,))
        self._split = NamedSharding(self._mesh, PartitionSpec("gallery"))
        self._everywhere = NamedSharding(self._mesh, PartitionSpec())
        self.shape = features.shape
        # Powers of two, so that galleries of many sizes share a few compiled programs.
        share = -(-self.shape[0] // len(devices))
        block_size = min(block_size, 2 ** (share - 1).bit_length())
        self.block_size = -(-block_size // _ROW_MULTIPLE) * _ROW_MULTIPLE
        self._rows = self.block_size * len(devices)
        self._features, self._blocks = features, None
        if resident is None:
            resident = 4 * self.shape[0] * self.shape[1] < room(devices)
        if resident:
            blocks = []
            for block in self._placed():
                blocks.append(jax.block_until_ready(block))
            self._features, self._blocks = features[:0], blocks

    def first(
        self,
        queries: Float[np.ndarray, "query dim"],
        k: int,
        kept: Bool[np.ndarray, "gallery"] | None = None,
    ) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
        """The k images of highest inner product for each query, exactly; ties by lower index.

        Args:
            queries: L2-normalised.
            k: all images if there are fewer.
            kept: the images that count; all by default.

        Returns:
            Their inner products, best first, and their indices.

        Raises:
            ValueError: `k` is less than 1, or as `similarities`.
        """
        queries = self._checked(queries)
        if k < 1:
            raise ValueError(f"k must be at least 1, it is {k}")
        images = self.shape[0]
        kept = np.ones(images, bool) if kept is None else kept
        k = min(k, int(np.count_nonzero(kept)))
        padded = np.pad(kept, (0, -images % self._rows))
        masks = [jax.device_put(part, self._split) for part in padded.reshape(-1, self._rows)]
        rounded = 1 << max(k - 1, 0).bit_length()  # so that many k share a few programs, as well
        size = min(1 << (len(queries) - 1).bit_length(), max(1, _GROUP_BYTES // (4 * self._rows)))
        scores = np.empty((len(queries), k), np.float32)
        indices = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), size):
            group = slice(start, min(start + size, len(queries)))
            placed = self._put_queries(queries[group], size)
            found = [
                _first(placed, block, mask, mesh=self._mesh, k=rounded)
                for block, mask in zip(self._placed(), masks, strict=True)
            ]
            best = np.concatenate([np.asarray(part[0]) for part in found], axis=1)
            index = [np.asarray(part[1]) + self._rows * i for i, part in enumerate(found)]
            order = np.argsort(-best, axis=1, kind="stable")[: group.stop - group.start, :k]
            best, index = best[: len(order)], np.concatenate(index, axis=1)[: len(order)]
            scores[group] = np.take_along_axis(best, order, axis=1)
            indices[group] = np.take_along_axis(index, order, axis=1)
        return scores, indices

    def similarities(
        self, queries: Float[np.ndarray, "query dim"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "group gallery"]]]:
        """Yield groups of queries with their inner products, in full float32.

        Meanwhile the devices compute the next group; memory is used for two groups.

        Raises:
            ValueError: the sizes do not match, there are no queries, or a feature is not finite.
        """
        queries = self._checked(queries)
        size = min(len(queries), max(1, _GROUP_BYTES // (4 * self.shape[0])))

        def products() -> Iterator[tuple[slice, list[Float[Array, "group rows"]]]]:
            for start in range(0, len(queries), size):
                group = slice(start, min(start + size, len(queries)))
                placed = self._put_queries(queries[group], size)
                yield group, [_product(placed, block) for block in self._placed()]

        for group, parts in one_ahead(products()):
            rows = np.concatenate([np.asarray(part) for part in parts], axis=1)
            yield group, rows[: group.stop - group.start, : self.shape[0]]

    def _placed(self) -> Iterator[Float[Array, "rows dim"]]:
        """Blocks on the devices, the last one padded with zeros."""
        if self._blocks is not None:
            yield from self._blocks
            return
        for start in range(0, self.shape[0], self._rows):
            part = np.asarray(self._features[start : start + self._rows], np.float32)
            _require_finite(part, "image", start)
            padded = np.pad(part, ((0, self._rows - len(part)), (0, 0)))
            yield jax.device_put(padded, self._split)

    def _put_queries(self, group: Float[np.ndarray, "group dim"], size: int) -> Array:
        """Queries on every device, padded to `size` with zeros."""
        return jax.device_put(np.pad(group, ((0, size - len(group)), (0, 0))), self._everywhere)

    def _checked(self, queries: Float[np.ndarray, "query dim"]) -> Float[np.ndarray, "query dim"]:
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.shape[1] or not len(queries):
            raise ValueError(
                f"queries have shape {list(queries.shape)}; expected [query, {self.shape[1]}], as "
                f"the gallery has shape {list(self.shape)}"
            )
        _require_finite(queries, "query", 0)
        return queries


def room(devices: Sequence[jax.Device] | None = None) -> float:  # pyright: ignore[reportInvalidTypeForm]  (jax's)
    """Bytes that a gallery may use on the devices."""
    stats = [device.memory_stats() for device in devices or jax.local_devices()]
    if all(stats):
        return 0.8 * sum(each["bytes_limit"] - each["bytes_in_use"] for each in stats)
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # a CPU's


def top_k(
    query_features: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"] | GalleryFeatures,
    k: int,
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The k images of highest inner product for each query, exactly; ties by lower index.

    Args:
        query_features: L2-normalised.
        gallery: L2-normalised features, or a `GalleryFeatures` of them.
        k: number of images; all if there are fewer.

    Returns:
        Scores and indices in the gallery, best first.

    Raises:
        ValueError: the sizes do not match, or a feature is not finite.
    """
    gallery = gallery if isinstance(gallery, GalleryFeatures) else GalleryFeatures(gallery)
    return gallery.first(query_features, k)


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


@functools.partial(jax.jit, static_argnames=("mesh", "k"))
def _first(queries, features, kept, *, mesh, k):
    """Scores of each device's top k and their positions in its block, ties by lower position."""

    def of_one_device(queries, features, kept):
        scores = jnp.where(kept, _product(queries, features), -jnp.inf)
        groups = scores.reshape(len(queries), -1, _ROW_MULTIPLE)
        _, chosen = jax.lax.top_k(groups.max(axis=2), min(k, groups.shape[1]))
        chosen = jnp.sort(chosen, axis=1)
        candidates = jnp.take_along_axis(groups, chosen[:, :, None], axis=1)
        candidates = candidates.reshape(len(queries), -1)
        best, place = jax.lax.top_k(candidates, min(k, candidates.shape[1]))
        row, column = place // _ROW_MULTIPLE, place % _ROW_MULTIPLE
        index = jnp.take_along_axis(chosen, row, axis=1) * _ROW_MULTIPLE + column
        return best, index + jax.lax.axis_index("gallery") * len(features)

    rows, columns = PartitionSpec("gallery"), PartitionSpec(None, "gallery")
    return jax.shard_map(
        of_one_device, mesh=mesh, in_specs=(PartitionSpec(), rows, rows), out_specs=columns
    )(queries, features, kept)


def _require_finite(features: Float[np.ndarray, "rows dim"], what: str, first: int) -> None:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"the features of {what} {first + np.argmin(finite)} are not finite: the model's "
            "training has failed; use an earlier checkpoint, or train again"
        )
