"""The platform is read off a mesh's devices; memory is kept where a program asks for it."""

import subprocess
import sys
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


def test_whoever_asks_for_the_same_bits_gets_them_in_this_process_too():
    """By an option of each program, not by a variable that JAX reads once when it starts."""
    name = "xla_gpu_deterministic_ops"
    assert Platform("cuda", 9.0).compiler_options(deterministic=True)[name]
    assert Platform("rocm").compiler_options(deterministic=True) == {name: True}
    for kind in ("cpu", "tpu"):
        assert Platform(kind).compiler_options(deterministic=True) == {}
    assert Platform("cuda", 9.0).compiler_options() == {}


def test_xla_knows_the_options():
    options = Platform("cuda", 9.0).compiler_options(deterministic=True)
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="xla_gpu_enable_nothing"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_enable_nothing": False})(1)


PROGRAM = """
import resource, sys
from aima_jax.platform import keep_memory

if sys.argv[1] == "kept":
    keep_memory()

def faults_of_an_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"1") * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_an_array()
print(faults_of_an_array())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_large_array_takes_the_pages_of_the_one_before():
    def faults(how):
        return int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], text=True))

    assert faults("kept") < 100 < 1000 < faults("given back")
