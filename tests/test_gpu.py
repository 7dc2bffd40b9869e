"""What only an NVIDIA GPU can show: `JAX_PLATFORMS=cuda,cpu python -m pytest tests/test_gpu.py`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aima_jax.models.attention import attention
from aima_jax.platform import platform_of
from aima_jax.sharding import make_mesh

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="no GPU, or JAX_PLATFORMS does not name it"
)


@pytest.mark.parametrize("tokens", [40, 77, 193])
@pytest.mark.parametrize("form", ["whole", "causal", "lengths"])
def test_attention_by_cudnn_is_the_same_but_for_rounding(form, tokens):
    draw = np.random.default_rng(0).normal
    query, key, value, cotangent = jnp.asarray(draw(size=(4, 3, tokens, 2, 64)), jnp.bfloat16)
    options = {
        "causal": form == "causal",
        "lengths": jnp.array([1, 17, tokens]) if form == "lengths" else None,
    }

    def value_and_gradients(function, dtype):
        def run(query, key, value, cotangent):
            mixed, pull_back = jax.vjp(lambda *x: function(*x, **options), query, key, value)
            return mixed, *pull_back(cotangent)

        arguments = [x.astype(dtype) for x in (query, key, value, cotangent)]
        compiled = jax.jit(run).lower(*arguments).compile()
        return compiled.as_text(), compiled(*arguments)

    program, actual = value_and_gradients(
        partial(attention, platform=platform_of(make_mesh())), jnp.bfloat16
    )
    assert "fmha" in program
    with jax.default_matmul_precision("highest"):
        _, expected = value_and_gradients(attention, jnp.float32)
    for ours, reference in zip(actual, expected, strict=True):
        difference = np.abs(np.asarray(ours, np.float32) - reference)
        assert difference.max() < 0.01 * np.abs(reference).max()
