"""The platform that a model runs on, a value passed down from the mesh; and a CPU's memory."""

import ctypes
import sys
from dataclasses import dataclass

from jax.sharding import Mesh


@dataclass(frozen=True)
class Platform:
    """The kind of a mesh's devices, which need not be in this machine.

    Attributes:
        kind: "cpu", "cuda" or "tpu"; JAX's name for other devices.
        compute_capability: of an NVIDIA GPU, such as 9.0.
    """

    kind: str
    compute_capability: float | None = None

    def compiler_options(self, *, deterministic: bool = False) -> dict[str, bool]:
        """`compiler_options` of `jax.jit` for the training step and the encoders.

        Args:
            deterministic: use bitwise reproducible kernels; on a CPU and on a TPU they always are.
        """
        on_gpu = self.kind not in ("cpu", "tpu")
        return {"xla_gpu_deterministic_ops": True} if deterministic and on_gpu else {}


CPU = Platform("cpu")


def platform_of(mesh: Mesh) -> Platform:
    """The platform of a mesh; the only place in this package that inspects devices."""
    device = mesh.devices.flat[0]
    if device.platform not in ("gpu", "cuda"):
        return Platform(device.platform)
    try:
        return Platform("cuda", float(device.compute_capability))
    except (AttributeError, ValueError):  # AMD's are names such as "gfx942"
        return Platform(device.platform)


# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Make glibc keep the memory of freed large arrays; programs should call this first.

    XLA's CPU backend allocates its temporary memory at every step and frees it afterwards. With
    glibc's defaults, the kernel then maps and clears each page again. No effect without glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_MMAP_MAX, 0)  # large arrays in the heap as well,
    libc.mallopt(_ARENA_MAX, 1)  # in the one that grows without bounds,
    libc.mallopt(_TRIM_THRESHOLD, -1)  # which keeps what they leave
