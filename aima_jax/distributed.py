"""Starts JAX on one host or many."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

# Number of processes, as set by clusters whose hosts JAX finds by itself.
_CLUSTER_SIZES = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
HEARTBEAT_SECONDS = 60


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    deterministic: bool = False,
) -> None:
    """Joins the other hosts, if there are any; to be called before JAX touches a device.

    Hosts are named by three arguments, or found in the variables of Slurm, Open MPI or a TPU pod.
    A host that is not heard of for a minute ends the others with a message.

    Args:
        coordinator: address:port of host 0.
        processes: number of hosts.
        process: number of this host, from 0.
        deterministic: ask XLA for GPU kernels that give the same bits every time.

    Raises:
        ValueError: only some of the three are given.
    """
    if deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true"
    given = [argument is not None for argument in (coordinator, processes, process)]
    if any(given) != all(given):
        raise ValueError("--coordinator, --processes and --process belong together: give all three")
    if any(given) or _in_cluster():
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Tells in words of a host that is gone, where its connections break before its heartbeat does.

    Raises:
        ConnectionError: what all hosts compute has failed.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        raise ConnectionError(
            f"what all hosts compute together has failed: {str(error).splitlines()[0]}\n"
            "If one of them has stopped, see what it says. Start all of them again: the run goes "
            "on from its last checkpoint"
        ) from error


def leave(code: int) -> int:
    """Returns an exit code; but with other hosts, ends at once, or they would wait for this one."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def from_first_host(compute: Callable[[], int]) -> int:
    """What host 0 computes, on all hosts: where each looks for itself, they could disagree."""
    value = compute() if jax.process_index() == 0 else 0
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _in_cluster() -> bool:
    several = any(int(os.environ.get(name, 1)) > 1 for name in _CLUSTER_SIZES)
    return several or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
