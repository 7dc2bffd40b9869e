"""The platform is read off a mesh's devices, wherever they are."""

import types

import jax
import numpy as np
import pytest

from aima_jax.platform import Platform, platform_of
from aima_jax.sharding import make_mesh


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"platform": "tpu"}, Platform("tpu")),
        ({"platform": "gpu", "compute_capability": "9.0"}, Platform("cuda", 9.0)),
        ({"platform": "gpu", "compute_capability": "gfx942"}, Platform("gpu")),
        ({"platform": "cpu"}, Platform("cpu")),
    ],
)
def test_a_device_tells_its_kind(device, expected):
    mesh = types.SimpleNamespace(devices=np.array([[types.SimpleNamespace(**device)]]))
    assert platform_of(mesh) == expected


def test_this_machine_is_what_jax_computes_on():
    assert platform_of(make_mesh()).kind == {"gpu": "cuda"}.get(
        jax.default_backend(), jax.default_backend()
    )


def test_products_go_to_cublas_where_it_is():
    assert Platform("cuda", 9.0).compiler_options() == {"xla_gpu_enable_triton_gemm": False}
    assert Platform("cpu").compiler_options() == Platform("tpu").compiler_options() == {}


def test_xla_knows_the_options():
    options = Platform("cuda", 9.0).compiler_options()
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="xla_gpu_enable_nothing"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_enable_nothing": False})(1)
