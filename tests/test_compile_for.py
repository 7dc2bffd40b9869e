"""The training step compiled for a TPU where there is none: `.ci/extras` installs what it needs."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs .[aot]"
)
def test_the_tiny_step_compiles_for_a_tpu():
    command = [sys.executable, str(ROOT / "benchmarks" / "compile_for.py"), "v5e:2x2"]
    flags = ["--model=tiny", "--batch=16", "--fsdp=2", "--remat=full"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
    assert "4 × TPU v5 lite" in done.stdout
    (by_formula,) = map(float, re.findall(r"([\d.]+) TFLOP a device by the formula", done.stdout))
    (by_xla,) = map(float, re.findall(r"([\d.]+) by XLA", done.stdout))
    assert 0.1 * by_formula < by_xla < 2 * by_formula
    assert done.stdout.rstrip().endswith("fits into 16 GiB")
