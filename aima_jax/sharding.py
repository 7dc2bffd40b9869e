"""A mesh with two axes: the batch is sharded over both, large parameters over `fsdp`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Item = TypeVar("Item")
BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  (jax's)
) -> Mesh:
    """Arrange devices, all of all hosts by default, as data × fsdp.

    Args:
        data: -1: all devices that `fsdp` leaves.
        fsdp: number of devices that parameters are sharded over.
        devices: fewer than all, for a single process.

    Raises:
        ValueError: the two do not multiply to the number of devices.
    """
    count = len(devices or jax.devices())
    if data == -1 and fsdp > 0 and count % fsdp == 0:
        data = count // fsdp
    if data < 1 or fsdp < 1 or data * fsdp != count:
        raise ValueError(
            f"mesh.data={data} × mesh.fsdp={fsdp} must use all {count} devices; "
            "mesh.data=-1 takes what mesh.fsdp leaves, which must divide them"
        )
    return jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis sharded over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(shapes, mesh: Mesh, min_shard_elements: int = 2**16):
    """Shard each large array along its longest axis that is divisible by the fsdp axis.

    The rule depends on shapes alone, so optimizer moments are sharded like their parameters.

    Args:
        shapes: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: from `make_mesh`.
        min_shard_elements: smaller arrays are replicated.
    """

    def place(leaf) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.shape["fsdp"] == 0]
        if mesh.shape["fsdp"] == 1 or math.prod(leaf.shape) < min_shard_elements or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        spec = ("fsdp" if axis == longest else None for axis in range(len(leaf.shape)))
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, shapes)


def put_rows(rows: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Turn this host's rows into global arrays sharded along their first axis."""
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in rows.items()
    }


def put_array(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Place an array that every host has in full; each device gets a copy of its own part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index].copy())


def to_first_host(arrays: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Copy arrays to the first host, each complete; the other hosts get none.

    All hosts must call this with the same arrays.
    """
    copies = {}
    for name in sorted(arrays):
        array = arrays[name]
        if not (array.is_fully_addressable or array.is_fully_replicated):
            array = multihost_utils.process_allgather(array, tiled=True)
        if jax.process_index() == 0:
            copies[name] = np.array(array)
    return copies


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item after computing the next one, so that devices work while the host waits."""
    iterator = iter(items)
    for before in iterator:
        for item in iterator:
            yield before
            before = item
        yield before
