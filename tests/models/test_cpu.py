"""What XLA's CPU backend needs: the formula's gradient, what is kept for it, and what for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aima_jax.models import cpu
from aima_jax.sharding import batch_sharding, make_mesh

POLICY = jax.checkpoint_policies.dots_with_no_batch_dims_saveable


def bend(x, parameters, lengths=None):
    kernel, scale = parameters
    y = cpu.matmul(jnp.tanh(x) * scale, kernel, preferred_element_type="float32")
    return y if lengths is None else y * (jnp.arange(y.shape[1]) < lengths[:, None])[..., None]


def arguments():
    shapes = [(2, 5, 7), (7, 3), (7,)]
    x, *parameters = (np.random.default_rng(0).normal(size=shape) for shape in shapes)
    return x, parameters


@pytest.mark.parametrize("lengths", [None, np.array([2, 5])])
@pytest.mark.parametrize("policy", [POLICY, jax.checkpoint_policies.nothing_saveable])
def test_value_and_gradient_are_the_formula_s(policy, lengths):
    x, parameters = arguments()
    exists = np.ones((2, 5)) if lengths is None else np.arange(5) < lengths[:, None]
    weights = np.random.default_rng(1).normal(size=(2, 5, 3)) * exists[..., None]

    def expected(x, kernel, scale):
        return np.sum(weights * (np.tanh(x) * scale @ kernel))

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def actual(x, parameters):
        y = cpu.checkpoint(bend, policy=policy)(x, parameters, lengths)
        return jnp.sum(jnp.asarray(weights, jnp.float32) * y)

    value, gradients = actual(
        *jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), (x, parameters))
    )
    assert value == pytest.approx(expected(x, *parameters), rel=1e-5)
    exact = [x, *parameters]
    for position, gradient in enumerate(jax.tree.leaves(gradients)):
        numeric = np.zeros(exact[position].shape)
        for index in np.ndindex(numeric.shape):
            ends = []
            for change in (1e-6, -1e-6):
                changed = [a.copy() for a in exact]
                changed[position][index] += change
                ends.append(expected(*changed))
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_it_takes_less_memory_also_where_xla_on_a_cpu_does_not_honour_jax_checkpoint():
    """JAX 0.10 does not, 0.12 does: from there on `cpu.checkpoint` is not needed."""

    def block(x, kernel):
        return x + jnp.tanh(x * jax.nn.sigmoid(x)) @ kernel

    def memory(function):
        def loss(x, kernels):
            for kernel in kernels:
                x = function(x, kernel)
            return jnp.sum(x**2)

        x, kernel = jnp.ones((16, 64, 64)), jnp.ones((64, 64))
        compiled = jax.jit(jax.grad(loss, argnums=1)).lower(x, 8 * [kernel]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    if jax.__version_info__ < (0, 11):
        assert memory(jax.checkpoint(block, policy=POLICY)) == memory(block)
    if jax.__version_info__ >= (0, 12):
        assert memory(jax.checkpoint(block, policy=POLICY)) < 0.7 * memory(block)
    assert memory(cpu.checkpoint(block, policy=POLICY)) < 0.7 * memory(block)


def test_only_arguments_and_what_the_policy_keeps_are_kept():
    function = cpu.checkpoint(lambda x, p: jnp.sin(bend(x, p)), policy=POLICY)
    kept = jax.eval_shape(lambda *x: jax.vjp(function, *x)[1], *arguments())
    assert sorted(x.shape for x in jax.tree.leaves(kept)) == [(2, 5, 7), (7,), (7, 3), (10, 3)]


def test_rows_of_many_devices_need_nothing_of_each_other():
    split = batch_sharding(make_mesh(devices=jax.devices()[:4]))
    x = jax.ShapeDtypeStruct((8, 5, 7), jnp.float32, sharding=split)
    function = cpu.checkpoint(bend, policy=POLICY)
    parameters = [jnp.ones((7, 3)), jnp.ones(7)]
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(function(x, parameters) ** 2)))
    program = gradient.lower(x).compile().as_text()
    assert not any(word in program for word in ("all-gather", "all-reduce", "collective-permute"))


def test_products_of_rows_are_those_of_more_axes():
    x, kernel = np.random.default_rng(0).normal(size=(2, 5, 7)), np.ones((7, 3))
    actual = cpu.matmul(jnp.asarray(x), jnp.asarray(kernel), preferred_element_type="float32")
    np.testing.assert_allclose(actual, x @ kernel, rtol=1e-5)
