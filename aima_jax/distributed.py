"""Start JAX on one host or many."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 60
# Launchers that JAX does not support, their process count variables, and how to recognise them.
_UNSUITED = (
    ("torchrun", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    ("mpiexec", "PMI_SIZE", "PMI_RANK"),
)


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Connect to the other hosts, if any; call this before JAX uses a device.

    Hosts are given by the three arguments, or by variables of Slurm, Open MPI or a TPU pod. If a
    host is silent for a minute, the others stop with a message. A Slurm allocation without srun
    does not start other processes: this one then runs alone, and says so.

    Args:
        coordinator: address:port of host 0.
        processes: number of hosts; only 1 means a single host, whatever the variables say.
        process: number of this host, from 0.

    Raises:
        ValueError: only some of the three are given, no coordinator was found, or several processes
            were started by a launcher that JAX does not support.
    """
    given = [argument is not None for argument in (coordinator, processes, process)]
    if given == [False, True, False] and processes == 1:
        return
    if any(given) != all(given):
        raise ValueError("--coordinator, --processes and --process belong together: give all three")
    launcher = "the command line"
    if not any(given):
        launcher, processes, process = _launched()
        if not launcher:
            return
    number = "" if process is None else f" as process {process} of {processes}"
    print(f"joining the other hosts{number}, found by {launcher}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise ValueError(
            f"{launcher} has started several processes, but JAX could not connect them ({error}); "
            "give each --coordinator=host0:port, --processes and --process"
        ) from error


def _launched() -> tuple[str, int | None, int | None]:
    """The launcher of several processes, their number, and the number of this one.

    "" if there is none; None for values that JAX will determine.
    """
    tasks, step_tasks = _count("SLURM_NTASKS"), _count("SLURM_STEP_NUM_TASKS")
    if step_tasks > 1 and "SLURM_PTY_PORT" not in os.environ:
        return "srun", step_tasks, _count("SLURM_PROCID", 0)
    if tasks > 1:
        print(
            f"Slurm has allocated {tasks} tasks, but srun has not started this process as one of "
            f"them: it runs alone. To run on all of them: srun {shlex.join(['python', *sys.argv])}",
            file=sys.stderr,
            flush=True,
        )
        return "", None, None
    if _count("OMPI_COMM_WORLD_SIZE") > 1:
        return "mpirun", _count("OMPI_COMM_WORLD_SIZE"), _count("OMPI_COMM_WORLD_RANK", 0)
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "a TPU pod", None, None
    for launcher, variable, mark in _UNSUITED:
        if mark in os.environ and (count := _count(variable)) > 1:
            command = shlex.join(["python", *sys.argv])
            raise ValueError(
                f"{launcher} has started {count} processes, but one uses all devices of a host. On "
                f"one host: {command}. On several, on each: {command} --coordinator=host0:port "
                "--processes=N --process=I"
            )
    return "", None, None


def _count(variable: str, default: int = 1) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


@contextlib.contextmanager
def report_lost_hosts() -> Iterator[None]:
    """Report a lost host whose connections break before its heartbeat times out.

    Raises:
        ConnectionError: a collective has failed.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        raise ConnectionError(
            f"a collective has failed: {str(error).splitlines()[0]}\n"
            "If a host has stopped, see its output. Restart all of them: the run resumes from its "
            "last checkpoint"
        ) from error


def end_process(code: int) -> int:
    """Return an exit code; with several hosts, exit immediately, so that no other host waits."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def from_first_host(compute: Callable[[], int]) -> int:
    """Return host 0's result on every host: separate computations could disagree."""
    value = compute() if jax.process_index() == 0 else 0
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
