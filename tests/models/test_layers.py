"""Blocks: what is kept of them for the backward pass, and that nothing changes their gradient."""

import collections
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.models import TextConfig
from aima_jax.models.layers import Block, LayerNorm, apply_blocks
from aima_jax.platform import CPU, Platform

TPU = Platform("tpu")
PLAIN = {"scan_layers": False, "remat": "none"}


def make_blocks(count, *, heads=2, causal=False, platform=None):
    shape = TextConfig(width=8, layers=1, heads=heads, mlp_width=32)
    options = {"dtype": "float32", "rngs": nnx.Rngs(0), "platform": platform}
    return nnx.List([Block(shape, causal=causal, **options) for _ in range(count)])


def kept_by(block, **options):
    """Shapes that the backward pass of a block keeps, without those of its parameters."""
    graph, state = nnx.split(nnx.List([block]))

    def run(state, x):
        return apply_blocks(nnx.merge(graph, state), x, **PLAIN | options)

    residuals = jax.eval_shape(lambda *x: jax.vjp(run, *x)[1], state, jnp.ones((2, 7, 8)))
    shapes = collections.Counter(x.shape for x in jax.tree.leaves(residuals))
    return shapes - collections.Counter(x.shape for x in jax.tree.leaves(state))


def test_on_a_cpu_a_block_keeps_its_input_and_its_products_only():
    (block,) = make_blocks(1, platform=CPU)
    # Of 14 tokens queries, keys, values and what attention adds to them; and the hidden layer.
    products = {(14, 8): 4, (14, 32): 1}
    assert kept_by(block) == collections.Counter({(2, 7, 8): 1} | products)
    assert kept_by(block, remat="full") == collections.Counter({(2, 7, 8): 1})


@pytest.mark.parametrize("platform", [None, TPU])
def test_elsewhere_a_block_keeps_what_it_computes_unless_it_is_told_otherwise(platform):
    (block,) = make_blocks(1, platform=platform)
    assert any(shape[-2:] == (7, 7) for shape in kept_by(block))
    assert not any(shape[-2:] == (7, 7) for shape in kept_by(block, remat="dots"))
    assert kept_by(block, remat="full") == collections.Counter({(2, 7, 8): 1})


@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("form", ["whole", "causal", "lengths"])
@pytest.mark.parametrize(
    ("scan_layers", "remat"), [(False, "none"), (True, "none"), (False, "full"), (True, "full")]
)
def test_what_a_cpu_computes_again_changes_no_gradient(scan_layers, remat, form, first):
    expected = derivative(None, form, first, **PLAIN)
    options = {"scan_layers": scan_layers, "remat": remat}
    difference = np.abs(derivative(CPU, form, first, **options) - expected)
    assert difference.max() < 1e-6 * np.abs(expected).max()


@functools.cache
def derivative(platform, form, first, **options):
    """Of a number that three blocks make of their input and parameters."""
    x = np.random.default_rng(0).normal(size=(2, 7, 8)).astype(np.float32)
    lengths = np.array([4, 7]) if form == "lengths" else None
    graph, state = nnx.split(make_blocks(3, causal=form == "causal", platform=platform))

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def run(state, x, lengths):
        y = apply_blocks(nnx.merge(graph, state), x, lengths, first=first, **options)
        return jnp.sum(y**2)

    return np.concatenate(jax.tree.leaves(run(state, x, lengths)), axis=None)


def test_layer_norm_is_the_formula_with_statistics_in_float32():
    norm = LayerNorm(64)
    norm.scale[...], norm.bias[...] = np.random.default_rng(0).normal(size=(2, 64))
    x = 1000 + np.random.default_rng(1).normal(size=(3, 64))
    rows = jnp.asarray(x, jnp.bfloat16)
    exact = np.asarray(rows, np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5)
    expected = expected * norm.scale[...] + norm.bias[...]
    np.testing.assert_allclose(
        norm(jnp.asarray(exact, jnp.float32)), expected, rtol=1e-4, atol=1e-4
    )
    assert norm(rows).dtype == jnp.bfloat16
    np.testing.assert_allclose(norm(rows).astype(jnp.float32), expected, rtol=1e-2, atol=1e-2)
