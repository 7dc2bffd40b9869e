"""How XLA is to compile what a run spends its time in."""

from jax.extend.backend import get_backend


def on_cuda() -> bool:
    """Whether computation is on NVIDIA's GPUs."""
    return "cuda" in get_backend().platform_version


def options() -> dict[str, bool]:
    """`compiler_options` of `jax.jit` for the training step and the encoders.

    On NVIDIA's GPUs every matrix product goes to cuBLAS, which adds a bias, and a residual, to it.
    Where XLA may take Triton as well, it adds them in passes of their own, whoever wins.
    """
    return {"xla_gpu_enable_triton_gemm": False} if on_cuda() else {}
