"""Similarities of queries with a gallery of any size, block by block over the devices.

Every block has the same shape and goes through the same compiled product, so a pair has the same
similarity to the last bit wherever it lies, on any number of devices.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

BLOCK_SIZE = 2048
AXIS = "gallery"


class Block(NamedTuple):
    """Consecutive images of a gallery, split over the devices.

    Attributes:
        features: one row for each image, then padding.
        start: index in the gallery of the first row.
        count: number of rows that are images.
    """

    features: Float[Array, "rows dim"]
    start: int
    count: int


def gallery_mesh(mesh: Mesh | None) -> Mesh:
    """The devices of a mesh, or all of this host's, along one axis."""
    devices = np.array(jax.local_devices()) if mesh is None else mesh.devices.ravel()
    return Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))


def replicate(array: np.ndarray, mesh: Mesh) -> Array:
    """A copy on every device of all hosts, each of which has the whole array."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def one_each(array: np.ndarray, mesh: Mesh) -> Array:
    """[devices, ...]: a copy for each device, which goes on to differ from the others."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    shape = (mesh.size, *array.shape)
    return jax.make_array_from_callback(shape, sharding, lambda _: array[None])


def blocks(
    features: Float[np.ndarray, "gallery dim"], mesh: Mesh, block_size: int
) -> Iterator[Block]:
    """Places a gallery on the devices, block by block.

    Args:
        features: every host has them all; they may be a memory map.
        mesh: from `gallery_mesh`.
        block_size: images on one device at once, rounded up to a multiple of 128: at other sizes
            the matrix product of a CPU sums the last rows in another order than the first.

    Raises:
        ValueError: a feature is not finite.
    """
    rows = -(-block_size // 128) * 128 * mesh.size
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    for start in range(0, len(features), rows):
        part = np.asarray(features[start : start + rows], np.float32)
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            raise ValueError(f"the features of image {start + np.argmin(finite)} are not finite")
        count = len(part)
        if count < rows:
            part = np.pad(part, ((0, rows - count), (0, 0)))
        placed = jax.make_array_from_callback(part.shape, sharding, part.__getitem__)
        yield Block(placed, start, count)


def similarities(
    queries: Float[Array, "query dim"], block: Block, mesh: Mesh
) -> Float[Array, "query rows"]:
    """Inner products in full float32, minus infinity for padding; split along the gallery."""
    return _similarities(queries, block.features, block.count, mesh=mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _similarities(queries, features, count, *, mesh):
    def local(queries, features, count):
        product = jnp.einsum("qd,gd->qg", queries, features, precision="highest")
        row = jax.lax.axis_index(AXIS) * len(features) + jnp.arange(len(features))
        return jnp.where(row < count, product, -jnp.inf)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(None, AXIS),
    )(queries, features, count)
