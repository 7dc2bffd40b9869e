"""How glibc hands out memory: large arrays keep theirs from one training step to the next."""

import ctypes
import gc
import os
import sys

KEEPING_MEMORY = {
    "GLIBC_TUNABLES": ":".join(
        (
            "glibc.malloc.mmap_max=0",  # large arrays in the heap as well,
            "glibc.malloc.arena_max=1",  # in the one that grows without bounds,
            "glibc.malloc.trim_threshold=1000000000000",  # which keeps what they leave,
            "glibc.malloc.hugetlb=1",  # in pages of 2 MB where the kernel has them
        )
    )
}


def restart_keeping_memory() -> None:
    """Starts this Python again with an allocator that keeps the memory of large arrays.

    XLA's CPU backend asks for its temporary memory at every step and gives it back after it. As
    glibc comes, the kernel then maps and clears each page of it anew: a step of ViT-B/16 takes
    8.0 s in place of 6.7. Settings of the user's own in GLIBC_TUNABLES are left alone.
    """
    if sys.platform == "linux" and not KEEPING_MEMORY.keys() & os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEPING_MEMORY)


def give_back_memory() -> None:
    """Returns what is free to the system, such as what compiling has left; only glibc knows how."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
