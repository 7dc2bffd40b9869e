"""Batches on the mesh, put there one step ahead of their use."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aima_jax.data import TrainBatches, decode_all
from aima_jax.sharding import batch_sharding, one_late, put_rows
from aima_jax.training.step import Rows


def streamed(batches: TrainBatches, mesh: Mesh) -> Iterator[Rows]:
    """Decodes pictures on the host and puts each batch on the mesh while the one before is used."""
    sharding = batch_sharding(mesh)
    names = ("image", "category")
    return one_late(put_rows({name: batch[name] for name in names}, sharding) for batch in batches)


def resident(batches: TrainBatches, mesh: Mesh) -> Iterator[Rows]:
    """The same batches, gathered from a split that is decoded once and lies on the devices.

    Each host decodes its share of the split, which is sharded over all devices as uint8: PA-100K at
    384×128 is 12 GB.
    """
    sharding = batch_sharding(mesh)
    split, processes = batches.split, jax.process_count()
    share = -(-len(split) // mesh.size) * mesh.size // processes
    first = jax.process_index() * share
    held = np.minimum(np.arange(first, first + share), len(split) - 1)
    rows = {
        "image": decode_all(split, batches.image_size, held),
        "category": batches.category[held],
    }
    everything = put_rows(rows, sharding)
    gather = jax.jit(
        lambda rows, index: jax.tree.map(lambda x: jnp.take(x, index, axis=0), rows),
        out_shardings=sharding,
    )
    for step in range(batches.start_step, len(batches)):
        yield gather(everything, batches.indices(step))
