"""The backward passes written by hand: finite differences in float64, and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aima_jax.models import backward

EXISTS = np.arange(4) < np.array([2, 4])[:, None, None]
TOKENS = np.array([[1, 4, 4], [0, 1, 4]])


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def layer_norm(x, scale, bias):
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * scale + bias


def attend(query, key, value):
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
    "attend_again": (
        lambda *x: backward.attend_again(*x, EXISTS),
        attend,
        [(2, 3, 5), (2, 4, 5), (2, 4, 6)],
    ),
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


@pytest.mark.parametrize("name", ["quick_gelu_product", "layer_norm", "attend_again"])
def test_only_arguments_are_kept(name):
    """Left to itself the derivative keeps sigmoids, products and deviations as well."""
    function, _, shapes = CASES[name]
    arguments = [jnp.ones(shape) for shape in shapes]
    kept = jax.tree.leaves(jax.eval_shape(lambda *x: jax.vjp(function, *x)[1], *arguments))
    masks = [EXISTS.shape] if name == "attend_again" else []
    assert sorted(value.shape for value in kept) == sorted([*shapes, *masks])
