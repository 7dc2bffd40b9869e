"""The mesh, and where arrays lie on it."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aima_jax.sharding import (
    batch_sharding,
    make_mesh,
    one_ahead,
    put_array,
    put_rows,
    state_shardings,
)


def test_the_mesh_takes_all_devices():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}


@pytest.mark.parametrize(("data", "fsdp"), [(3, 1), (-1, 3), (8, 2), (0, 8)])
def test_a_mesh_that_does_not_fit_is_refused(data, fsdp):
    with pytest.raises(ValueError, match="all 8 devices"):
        make_mesh(data, fsdp)


def test_large_arrays_are_sharded_along_their_longest_axis_that_fits():
    shapes = {
        "kernel": jax.ShapeDtypeStruct((64, 128), np.float32),
        "odd": jax.ShapeDtypeStruct((64, 129), np.float32),
        "small": jax.ShapeDtypeStruct((8,), np.float32),
    }
    specs = {
        name: sharding.spec
        for name, sharding in state_shardings(shapes, make_mesh(fsdp=4), 100).items()
    }
    assert specs["kernel"] == PartitionSpec(None, "fsdp")
    assert specs["odd"] == PartitionSpec("fsdp", None)
    assert specs["small"] == PartitionSpec()


def test_rows_are_split_over_all_devices():
    rows = np.arange(16)
    array = put_rows({"x": rows}, batch_sharding(make_mesh(fsdp=2)))["x"]
    assert len({shard.device for shard in array.addressable_shards}) == 8
    assert all(shard.data.shape == (2,) for shard in array.addressable_shards)
    np.testing.assert_array_equal(array, rows)


def test_what_every_host_holds_whole_is_split_as_it_is_to_lie():
    whole = np.arange(32.0).reshape(4, 8)
    sharding = NamedSharding(make_mesh(fsdp=4), PartitionSpec(None, "fsdp"))
    array = put_array(whole, sharding)
    whole += 1  # the devices have their own
    assert array.sharding == sharding
    assert {shard.data.shape for shard in array.addressable_shards} == {(4, 2)}
    np.testing.assert_array_equal(array, whole - 1)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_ahead_makes_the_next_before_it_yields(count):
    made = []
    items = one_ahead(made.append(i) or i for i in range(count))
    for got in range(count):
        assert next(items) == got
        assert made[-1] == min(got + 1, count - 1)
    assert list(items) == []
