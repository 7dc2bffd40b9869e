"""The backward passes written by hand: finite differences in float64, and what they keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from aima_jax.models import backward
from aima_jax.models.layers import Linear
from aima_jax.platform import Platform

TOKENS = np.array([[1, 4, 4], [0, 1, 4]])


class Scale(nnx.Module):
    """Something with a parameter."""

    def __init__(self, scale):
        self.scale = nnx.Param(scale)


def bend_plainly(x, kernel, module):
    y = jnp.tanh(x) * module.scale[...]
    return y[:1], y @ kernel


bend = backward.computed_again(bend_plainly, Platform("cpu"))


def standardize(x):
    x = x - np.mean(x, axis=-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)


CASES = {
    "computed_again": (
        lambda x, kernel, scale: jnp.concatenate(bend(x, kernel, Scale(scale)), axis=None),
        lambda x, kernel, scale: np.concatenate(
            [np.tanh(x[:1]) * scale, np.tanh(x) * scale @ kernel], axis=None
        ),
        [(5, 7), (7, 3), (7,)],
    ),
    "layer_norm": (
        backward.layer_norm,
        lambda x, scale, bias: scale * standardize(x) + bias,
        [(4, 6), (6,), (6,)],
    ),
    "matmul": (
        lambda x, kernel: backward.matmul(x, kernel, "float32"),
        lambda x, kernel: x @ kernel,
        [(4, 3), (3, 2)],
    ),
    **{
        f"add_bias on {kind}": (
            partial(backward.add_bias, platform=Platform(kind)),
            lambda x, bias: x + bias,
            [(4, 3), (3,)],
        )
        for kind in ("cpu", "cuda")
    },
    "look_up": (lambda x: backward.look_up(x, TOKENS), lambda x: x[TOKENS], [(5, 2)]),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_formula_s(name):
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


@pytest.mark.parametrize("platform", [None, Platform("cuda", 9.0), Platform("tpu")])
def test_nothing_is_computed_again_elsewhere_than_on_a_cpu(platform):
    assert backward.computed_again(jnp.tanh, platform) is jnp.tanh


def test_of_what_is_computed_again_only_arguments_are_kept():
    arguments = jnp.ones((5, 7)), jnp.ones((7, 3)), Scale(jnp.ones(7))
    kept = jax.eval_shape(lambda *x: jax.vjp(bend, *x)[1], *arguments)
    assert sorted(value.shape for value in jax.tree.leaves(kept)) == [(5, 7), (7,), (7, 3)]


def test_the_compiler_does_compute_it_again():
    """Left to itself it would find that the forward pass has computed the same."""

    def count(function):
        arguments = jnp.ones((5, 7)), jnp.ones((7, 3)), Scale(jnp.ones(7))
        loss = jax.grad(lambda *x: sum(jnp.sum(y**2) for y in function(*x)), argnums=1)
        return jax.jit(loss).lower(*arguments).compile().as_text().count(" tanh(")

    assert count(bend) > count(bend_plainly)


def dots(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from dots(inner)


def test_no_product_is_widened_by_its_result():
    linear = Linear(3, 2, std=1.0, use_bias=False, dtype="bfloat16", rngs=nnx.Rngs(0))

    @partial(jax.grad, argnums=(0, 1))
    def gradient(linear, x):
        return jnp.sum(jnp.square(linear(x, output_dtype="float32")))

    products = list(dots(jax.make_jaxpr(gradient)(linear, jnp.ones((5, 3))).jaxpr))
    assert len(products) == 3
    assert {x.aval.dtype.name for p in products for x in p.invars} == {"bfloat16"}
    assert products[0].outvars[0].aval.dtype == "float32"
