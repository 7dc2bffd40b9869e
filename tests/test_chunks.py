"""Losses in chunks of rows: the same value and gradient as the whole, at less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aima_jax import losses

LOSSES = ("info_nce", "multi_positive", "sdm", "iou_softmax", "iou_normalized")


def loss(images, texts, temperature, labels, attributes, *, name, chunk_size):
    options = {"temperature": temperature, "chunk_size": chunk_size}
    if name in ("info_nce", "multi_positive"):
        positives = labels if name == "multi_positive" else None
        return losses.info_nce(images, texts, labels=positives, **options)
    if name == "sdm":
        return losses.similarity_distribution_matching(images, texts, labels, **options)
    target = name.removeprefix("iou_")
    return losses.attribute_iou_contrastive(texts, attributes, target=target, **options)


@functools.partial(jax.jit, static_argnames=("name", "chunk_size"))
def value_and_gradient(*arguments, name, chunk_size):
    return jax.value_and_grad(loss, argnums=(0, 1, 2))(*arguments, name=name, chunk_size=chunk_size)


def draw(batch, dtype=np.float64):
    rng = np.random.default_rng(0)
    images, texts = 3 * rng.normal(size=(2, batch, 5))
    images[1], texts[-1] = 0, 0
    temperature = np.asarray(0.05, dtype)
    labels, attributes = rng.integers(0, 4, batch), rng.integers(0, 2, (batch, 6))
    return images.astype(dtype), texts.astype(dtype), temperature, labels, attributes


def shapes(batch, dim=64, sharding=None):
    """Arguments to compile for."""
    features = jax.ShapeDtypeStruct((batch, dim), jnp.float32, sharding=sharding)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=sharding)
    attributes = jax.ShapeDtypeStruct((batch, 8), jnp.uint8, sharding=sharding)
    return features, features, jax.ShapeDtypeStruct((), jnp.float32), labels, attributes


def compiled(arguments, **options):
    return value_and_gradient.lower(*arguments, **options).compile()


def assert_close(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
@pytest.mark.parametrize("name", LOSSES)
def test_chunks_give_value_and_gradient_of_the_whole(name, chunk_size):
    with jax.enable_x64(True):
        arguments = draw(13)
        whole = value_and_gradient(*arguments, name=name, chunk_size=None)
        chunked = value_and_gradient(*arguments, name=name, chunk_size=chunk_size)
        assert_close(chunked, whole, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_scales_with_what_the_loss_is_multiplied_by(name):
    arguments = draw(8, np.float32)
    plain = value_and_gradient(*arguments, name=name, chunk_size=4)

    def scaled(*arguments):
        return -3 * loss(*arguments, name=name, chunk_size=4)

    value, gradient = jax.value_and_grad(scaled, argnums=(0, 1, 2))(*arguments)
    assert_close((value, gradient), jax.tree.map(lambda x: -3 * x, plain), 1e-6)


@pytest.mark.parametrize("chunk_size", [None, 10])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_split_over_devices_is_still_the_whole_batch(name, chunk_size):
    assert jax.device_count() == 8
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.enable_x64(True):
        arguments = draw(24)
        single = value_and_gradient(*arguments, name=name, chunk_size=chunk_size)
        split = [jax.device_put(x, rows if np.ndim(x) else whole) for x in arguments]
        assert_close(value_and_gradient(*split, name=name, chunk_size=chunk_size), single, 1e-12)


def test_devices_share_the_work_of_a_chunk():
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    alone, shared = (
        compiled(shapes(512, sharding=sharding), name="sdm", chunk_size=64).cost_analysis()["flops"]
        for sharding in (None, rows)
    )
    assert shared < alone / 7


@pytest.mark.parametrize("name", ["info_nce", "sdm", "iou_softmax"])
def test_memory_is_linear_in_the_batch(name):
    small, large, whole = (
        compiled(shapes(batch), name=name, chunk_size=chunk_size)
        .memory_analysis()
        .temp_size_in_bytes
        for batch, chunk_size in ((1024, 16), (4096, 16), (4096, None))
    )
    assert large < 4.2 * small
    assert large < 4096 * 4096 * 4 / 4 < whole


def test_a_chunk_holds_at_least_one_row():
    with pytest.raises(ValueError, match="chunk_size is 0; expected at least 1"):
        value_and_gradient(*draw(4, np.float32), name="sdm", chunk_size=0)
