"""What a model computes on: a value, taken from the mesh and handed down; a CPU's memory."""

import ctypes
import sys
from dataclasses import dataclass

from jax.sharding import Mesh


@dataclass(frozen=True)
class Platform:
    """The kind of a mesh's devices, which may be elsewhere than in this machine.

    Attributes:
        kind: "cpu", "cuda" or "tpu"; other devices have JAX's name for them.
        compute_capability: of an NVIDIA GPU, as 9.0.
    """

    kind: str
    compute_capability: float | None = None

    def compiler_options(self, *, deterministic: bool = False) -> dict[str, bool]:
        """`compiler_options` of `jax.jit` for the training step and the encoders.

        Args:
            deterministic: take kernels that give the same bits every time; those of a CPU and of a
                TPU always do.
        """
        on_gpu = self.kind not in ("cpu", "tpu")
        return {"xla_gpu_deterministic_ops": True} if deterministic and on_gpu else {}


CPU = Platform("cpu")


def platform_of(mesh: Mesh) -> Platform:
    """The platform of a mesh: the one place of this package that looks at devices."""
    device = mesh.devices.flat[0]
    if device.platform not in ("gpu", "cuda"):
        return Platform(device.platform)
    try:
        return Platform("cuda", float(device.compute_capability))
    except (AttributeError, ValueError):  # AMD's are named, as "gfx942"
        return Platform(device.platform)


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
