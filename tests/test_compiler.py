"""What XLA is asked for on each kind of device."""

import types

import jax
import pytest

from aima_jax import compiler


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("PJRT C API\ncuda 13000", {"xla_gpu_enable_triton_gemm": False}),
        ("PJRT C API\nTFRT TPU v5 lite", {}),
        ("<unknown>", {}),
    ],
)
def test_products_go_to_cublas_where_it_is(version, expected, monkeypatch):
    device = types.SimpleNamespace(platform_version=version)
    monkeypatch.setattr(compiler, "get_backend", lambda: device)
    assert compiler.options() == expected


def test_xla_knows_the_options():
    options = {"xla_gpu_enable_triton_gemm": False}
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="xla_gpu_enable_nothing"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_enable_nothing": False})(1)
