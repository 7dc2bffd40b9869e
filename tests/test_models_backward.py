"""The backward passes written by hand: finite differences in float64, and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.models import backward
from aima_jax.models.config import TransformerConfig
from aima_jax.models.layers import Block, apply_blocks

TOKENS = np.array([[1, 4, 4], [0, 1, 4]])
EXISTS = np.arange(4) < np.array([2, 4])[:, None, None]


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def layer_norm(x, scale, bias):
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * scale + bias


def mix(query, key, value):
    weights = np.exp(query @ key.swapaxes(1, 2)) * EXISTS
    return weights / weights.sum(axis=-1, keepdims=True) @ value


CASES = {
    "add_bias": (backward.add_bias, lambda x, bias: x + bias, [(4, 3), (3,)]),
    "quick_gelu": (backward.quick_gelu, quick_gelu, [(5, 7)]),
    "quick_gelu_product": (
        backward.quick_gelu_product,
        lambda x, kernel: quick_gelu(x) @ kernel,
        [(5, 7), (7, 3)],
    ),
    "layer_norm": (backward.layer_norm, layer_norm, [(2, 3, 6), (6,), (6,)]),
    "mix": (lambda *x: backward.mix(*x, EXISTS), mix, [(2, 3, 5), (2, 4, 5), (2, 4, 6)]),
    "look_up": (lambda x: backward.look_up(x, TOKENS), lambda x: x[TOKENS], [(5, 2)]),
}


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_formula_s(name, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)  # either form runs anywhere
    function, formula, shapes = CASES[name]
    generator = np.random.default_rng(0)
    arguments = [generator.normal(size=shape) for shape in shapes]
    weights = generator.normal(size=formula(*arguments).shape)

    def expected(*arguments):
        return np.sum(weights * formula(*arguments))

    def actual(*arguments):
        return jnp.sum(jnp.asarray(weights, jnp.float32) * function(*arguments))

    singles = [jnp.asarray(x, jnp.float32) for x in arguments]
    everything = range(len(arguments))
    value, gradients = jax.jit(jax.value_and_grad(actual, argnums=tuple(everything)))(*singles)
    assert value == pytest.approx(expected(*arguments), rel=1e-5)
    for position in everything:
        numeric = np.zeros(shapes[position])
        for index in np.ndindex(numeric.shape):
            ends = []
            for change in (1e-6, -1e-6):
                changed = [x.copy() for x in arguments]
                changed[position][index] += change
                ends.append(expected(*changed))
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradients[position], numeric, rtol=1e-4, atol=1e-5)


def test_a_block_keeps_ten_arrays():
    """The tokens twice, query, key, value, mixed, and four as large before the MLP's activation.

    Left to derived backward passes it keeps sixteen: sigmoids, weights of attention, deviations.
    """
    shape = TransformerConfig(width=64, layers=12, heads=2, mlp_width=256)
    options = {"activation": "quick_gelu", "causal": False, "dtype": "float32"}
    rngs = nnx.Rngs(0)
    blocks = [Block(shape, **options, rngs=rngs) for _ in range(shape.layers)]
    x = jnp.ones((8, 128, 64))

    def loss(x):
        return jnp.sum(jnp.square(apply_blocks(blocks, x, scan_layers=False, remat="none")))

    compiled = jax.jit(jax.grad(loss)).lower(x).compile()
    kept = compiled.memory_analysis().temp_size_in_bytes / x.nbytes / shape.layers
    assert kept < 11
