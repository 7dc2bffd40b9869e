"""Who is started as one of many joins the others; an allocation alone starts nobody."""

import sys

import jax
import pytest

from aima_jax import distributed

VARIABLES = (
    *("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_PTY_PORT"),
    *("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_HOSTNAMES"),
    *("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "PMI_SIZE", "PMI_RANK"),
)


@pytest.fixture
def joined(monkeypatch):
    """The arguments of each time that other hosts were joined."""
    calls = []

    def initialize(*arguments, heartbeat_timeout_seconds):
        calls.append(arguments)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["run.py", "--config=a b.py"])
    return calls


ALLOCATED = {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
INTERACTIVE = ALLOCATED | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "4294967290"}
PTY = ALLOCATED | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PTY_PORT": "4711"}


@pytest.mark.parametrize("variables", [ALLOCATED, INTERACTIVE, PTY])
def test_one_process_of_an_allocation_runs_alone_and_says_so(
    joined, monkeypatch, capsys, variables
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    distributed.start()
    assert joined == []
    said = capsys.readouterr().err
    assert "Slurm has allocated 8 tasks" in said
    assert "srun python run.py '--config=a b.py'" in said


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"SLURM_NTASKS": "1"}, []),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}, [(None, 8, 3)]),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, [(None, 2, 1)]),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, []),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, [(None, None, None)]),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, []),
        ({}, []),
    ],
)
def test_a_launched_process_joins_the_others(joined, monkeypatch, variables, arguments):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    distributed.start()
    assert joined == arguments


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("torchrun", {"WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "x"}),
        ("mpiexec", {"PMI_SIZE": "8", "PMI_RANK": "3"}),
    ],
)
def test_a_launcher_that_jax_does_not_know_is_named_with_the_right_command(
    joined, monkeypatch, launcher, variables
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"{launcher} has started 8 .* host: python run\.py '--c"):
        distributed.start()
    distributed.start(processes=1)  # whoever says so knows
    distributed.start("host0:1", 2, 1)
    assert joined == [("host0:1", 2, 1)]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("PMI_SIZE", "1")
    distributed.start()


def test_the_command_line_counts_before_variables(joined, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.start("host0:1234", 2, 1)
    assert joined == [("host0:1234", 2, 1)]
    distributed.start(processes=1)
    assert len(joined) == 1
    with pytest.raises(ValueError, match="belong together"):
        distributed.start(processes=2)


def test_a_coordinator_that_is_not_found_is_asked_for(joined, monkeypatch):
    def initialize(*arguments, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"mpirun has started several .* give each --coordinator"):
        distributed.start()
