"""Eight CPU devices, programs compiled quickly and once, the shared data where it is there."""

import atexit
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

import jaxtyping
import pytest

# Tests compile far longer than they compute: with LLVM's plainest code, and without MLIR for fused
# loops where XLA still has the choice, a training step compiles in a fifth of the time.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) <= (0, 10):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A program that one process compiles is there for all of them: xdist's workers and runs of run.py.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def unchecked(monkeypatch):
    """A function's own message about arguments that its annotations would refuse before it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real labels and crops, `AIMA_TEST_DATA` or `../shared/data`."""
    folder = pathlib.Path(os.environ.get("AIMA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder}: set AIMA_TEST_DATA")
    return folder
