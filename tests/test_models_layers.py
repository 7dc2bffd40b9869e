"""Attention and blocks: the textbook formula in every form, and what is kept of them."""

import collections
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.models import TextConfig, layers
from aima_jax.models.layers import Block, apply_blocks, attention
from aima_jax.platform import Platform

dot_product_attention = jax.nn.dot_product_attention
CPU, GPU, TPU = Platform("cpu"), Platform("cuda", 9.0), Platform("tpu")


def stand_in_for_cudnn(query, key, value, *, implementation, **options):
    """Takes what cuDNN takes, and refuses what JAX refuses to train on."""
    assert implementation == "cudnn"
    assert query.shape[1] % 2 == key.shape[1] % 2 == 0
    return dot_product_attention(query, key, value, **options)


@pytest.mark.parametrize("platform", [None, CPU, TPU, GPU])
@pytest.mark.parametrize("form", ["whole", "causal", "lengths"])
def test_attention_is_the_textbook_formula(form, platform, monkeypatch):
    if platform is GPU:
        monkeypatch.setattr(layers, "_has_fused_attention", lambda *_: True)
        monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in_for_cudnn)
    generator = np.random.default_rng(0)
    query, key, value = generator.normal(size=(3, 2, 7, 3, 4))
    lengths = np.array([4, 7])
    exists = np.ones((2, 7, 7), bool)
    if form == "causal":
        exists &= np.tri(7, dtype=bool)
    if form == "lengths":
        exists &= np.arange(7) < lengths[:, None, None]
    expected = np.zeros((2, 7, 3, 4))
    for row in range(2):
        for head in range(3):
            scores = query[row, :, head] @ key[row, :, head].T / 2
            weights = np.exp(scores) * exists[row]
            weights /= weights.sum(axis=1, keepdims=True)
            expected[row, :, head] = weights @ value[row, :, head]
    arguments = [x.astype(np.float32) for x in (query, key, value)]
    options = {"causal": form == "causal", "lengths": lengths if form == "lengths" else None}
    actual = attention(*map(jnp.asarray, arguments), **options, platform=platform)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def make_block(heads, *, causal=False, platform=None):
    shape = TextConfig(width=8, layers=1, heads=heads, mlp_width=32)
    options = {"activation": "quick_gelu", "dtype": "float32", "rngs": nnx.Rngs(0)}
    return Block(shape, causal=causal, platform=platform, **options)


def shapes_of(tree):
    return collections.Counter(x.shape for x in jax.tree.leaves(tree))


def kept_by(block):
    x = jnp.ones((2, 7, 8))
    return shapes_of(jax.eval_shape(lambda *x: jax.vjp(Block.__call__, *x)[1], block, x))


def test_a_block_keeps_its_input_and_its_products_only():
    block = make_block(heads=2, platform=CPU)  # of 4 channels, and there are 7 keys
    # The input, three projections and what the MLP gets; and its hidden layer.
    assert kept_by(block) == shapes_of(block) + collections.Counter({(2, 7, 8): 5, (2, 7, 32): 1})


@pytest.mark.parametrize(("platform", "heads"), [(CPU, 1), (TPU, 1), (TPU, 2)])
def test_weights_of_attention_are_kept_where_they_are_small_or_on_accelerators(platform, heads):
    block = make_block(heads, platform=platform)
    assert any(shape[-2:] == (7, 7) for shape in kept_by(block))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("causal", [False, True])
def test_what_a_block_computes_again_changes_no_gradient(first, causal, heads):
    x = np.random.default_rng(0).normal(size=(2, 7, 8)).astype(np.float32)

    def derivative(platform):
        graph, state = nnx.split(make_block(heads, causal=causal, platform=platform))

        @jax.jit
        @partial(jax.grad, argnums=(0, 1))
        def run(state, x, lengths):
            return jnp.sum(nnx.merge(graph, state)(x, lengths, first) ** 2)

        leaves = jax.tree.leaves(run(state, x, np.array([4, 7])))
        return np.concatenate(leaves, axis=None)

    expected = derivative(TPU)
    difference = np.abs(derivative(CPU) - expected)
    assert difference.max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("form", ["whole", "causal", "lengths"])
@pytest.mark.parametrize(
    ("scan_layers", "remat"), [(False, "none"), (True, "none"), (False, "full")]
)
def test_blocks_get_one_token_more_for_cudnn_and_give_the_same(
    scan_layers, remat, form, first, monkeypatch
):
    blocks = nnx.List([make_block(2, causal=form == "causal") for _ in range(3)])
    graph, state = nnx.split(blocks)
    x, weights = np.random.default_rng(0).normal(size=(2, 2, 7, 8)).astype(np.float32)
    lengths = np.array([4, 7]) if form == "lengths" else None
    options = {"scan_layers": scan_layers, "remat": remat, "first": first}

    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def run(state, x):
        y = apply_blocks(nnx.merge(graph, state), x, lengths, **options)
        return jnp.sum(weights[:, :first] * y), y

    def even_only(query, key, value, **options):
        assert key.shape[1] == 8
        return by_cudnn(query, key, value, **options)

    expected = run(state, x)
    by_cudnn = layers._attention_by_cudnn
    monkeypatch.setattr(layers, "_has_fused_attention", lambda *_: True)
    monkeypatch.setattr(layers, "_attention_by_cudnn", even_only)
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in_for_cudnn)
    for actual, reference in zip(*map(jax.tree.leaves, (run(state, x), expected)), strict=True):
        np.testing.assert_allclose(actual, reference, rtol=1e-4, atol=1e-5)


def test_attention_takes_scores_of_any_size():
    x = jnp.full((1, 3, 1, 4), 300.0)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(attention(x, x, x)))(x)
    assert value == pytest.approx(3600)
    assert jnp.all(jnp.isfinite(gradient))
