"""A step that was not finite: what a person is told of it, and how to take it again."""

import math
import pathlib
import sys
from collections.abc import Mapping
from typing import NoReturn

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aima_jax.losses import LOSSES
from aima_jax.training.feed import streamed
from aima_jax.training.run import Run, open_run
from aima_jax.workdir import held


def raise_not_finite(run: Run, step: int, values: Mapping[str, float]) -> NoReturn:
    """Ends the run, naming the step, the losses, the pictures and the command that replays it.

    Raises:
        FloatingPointError: always.
    """
    names = [n for n in ("loss", *LOSSES, "gradient_norm") if not math.isfinite(values.get(n, 0))]
    files = [run.problem.train.filename[i] for i in run.batches.indices(step)]
    command = " ".join([*sys.argv, "--mode=replay"])
    raise FloatingPointError(
        f"step {step}: {', '.join(names)} not finite; the state before it is saved.\n"
        f"Its pictures: {' '.join(files)}\n"
        f"Replay it: python {command}\n"
        "Go on without it: --config.on_nonfinite=skip"
    )


def replay(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Takes the step after the newest checkpoint once more, and saves nothing.

    Returns:
        Its losses and other metrics, which are printed as well.
    """
    workdir = pathlib.Path(workdir).resolve()
    with held(workdir, config):
        run = open_run(config, workdir)
        batch = next(streamed(run.batches, run.mesh))
        request = {"request": jnp.zeros(run.mesh.size, jnp.int32)}
        _, metrics = run.step(run.state, batch | request, run.table)
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        print(f"step {run.first_step}  {name:<18} {value!r}")
    return values
