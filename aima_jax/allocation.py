"""How glibc hands out memory: large arrays keep theirs from one training step to the next."""

import ctypes
import sys

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Have glibc keep the memory of large arrays once they are freed; for programs to call first.

    XLA's CPU backend asks for its temporary memory at every step and gives it back after it. As
    glibc comes, the kernel then maps and clears each page of it anew. Does nothing without glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_MMAP_MAX, 0)  # large arrays in the heap as well,
    libc.mallopt(_ARENA_MAX, 1)  # in the one that grows without bounds,
    libc.mallopt(_TRIM_THRESHOLD, -1)  # which keeps what they leave
