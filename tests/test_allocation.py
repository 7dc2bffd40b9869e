"""The allocator's settings: a program starts again with them, unless it has others."""

import os
import subprocess
import sys

import pytest

from aima_jax.allocation import KEEPING_MEMORY, give_back_memory

PROGRAM = """
import os, sys
from aima_jax.allocation import restart_keeping_memory
restart_keeping_memory()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
@pytest.mark.parametrize("own", [{}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}])
def test_a_program_starts_again_with_its_arguments(own):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", PROGRAM, "first", "second argument"]
    printed = subprocess.check_output(command, env=environment | own, text=True)
    settings = (KEEPING_MEMORY | own)["GLIBC_TUNABLES"]
    assert printed == f"{settings} ['first', 'second argument']\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_freed_memory_is_given_back():
    program = """
from aima_jax.allocation import give_back_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
pieces = [bytes(1000) for _ in range(200_000)]
last = bytes(1000)  # holds the heap's end
del pieces
before = resident()
give_back_memory()
print(before - resident())
"""
    environment = os.environ | {"PYTHONMALLOC": "malloc"}
    freed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert int(freed) > 100_000_000


def test_giving_back_may_be_asked_anywhere():
    give_back_memory()
