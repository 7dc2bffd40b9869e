"""The allocator keeps the memory of large arrays where a program asks it to."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from aima_jax.allocation import keep_memory

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
