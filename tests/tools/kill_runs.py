"""Kill tiny runs at random moments, resume them, and compare them with one left in peace.

    python tests/tools/kill_runs.py --kills=24 --seed=0

A run trains eight steps with saves and validations between them, and evaluates. It is killed by
SIGKILL while it starts, steps, saves or evaluates, again and again until it ends by itself. Then
its workdir must be that of a run that nobody killed: the same files, the same losses step for step
in metrics.jsonl and TensorBoard, the same parameters and results to the last bit.
"""

import argparse
import collections
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aima_jax import checkpoint
from aima_jax.parameters import flatten
from aima_jax.workdir import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATASET = "synthetic_pedestrians/train64-val16-test32-seed0"
STEPS = 8
FLAGS = {
    "dataset": DATASET,
    "batch_size": 16,
    "epochs": 2,
    "eval_every_epochs": 1.0,
    "eval_batch_size": 16,
    "log_every_steps": 1,
    "checkpoint_every_steps": 3,
    "save_rankings": True,
    "report": True,
}
# What differs from start to start: when something was, and how long it took.
_TIMES = ("train/images_per_second", "train/waiting_for_data")


def command(workdir, data_dir, *flags):
    """The command line of the run."""
    fields = FLAGS | {"data_dir": data_dir}
    return [
        sys.executable,
        str(ROOT / "run.py"),
        "--config=configs/synthetic.py",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *flags,
    ]


class Moment(NamedTuple):
    """When to kill: some seconds after something is seen in the workdir.

    `seen` is given the workdir and how many rows were logged when the process started.
    """

    name: str
    seen: Callable[[pathlib.Path, int], bool]
    seconds: float


START = Moment("start", lambda workdir, before: True, 4)
STEPPING = Moment("steps", lambda workdir, before: logged(workdir) > before, 1)
SAVING = Moment("save", lambda workdir, before: saves(workdir), 0.1)
EVALUATING = Moment("evaluation", lambda workdir, before: is_trained(workdir), 2)


def moments(rng):
    """Moments at which to kill one run, one after the other; each comes up to twice as late."""
    kinds = rng.choices([START, STEPPING, SAVING], k=rng.randint(2, 4))
    kinds += [EVALUATING] * rng.randint(0, 2)
    return [kind._replace(seconds=rng.uniform(0, 2 * kind.seconds)) for kind in kinds]


def logged(workdir):
    return len(read_metrics(workdir / "metrics.jsonl"))


def saves(workdir):
    folders = (workdir / checkpoint.FOLDER).glob("[0-9]*")
    return not all(checkpoint.is_sealed(folder) for folder in folders)


def is_trained(workdir):
    return checkpoint.is_sealed(workdir / checkpoint.FOLDER / str(STEPS))


def start(command):
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def killed(command, workdir, moment):
    """Run until the moment, and kill; False where the run ended before, as it should."""
    before = logged(workdir)
    process = start(command)
    while process.poll() is None and not moment.seen(workdir, before):
        time.sleep(0.002)
    if process.poll() is None:
        time.sleep(moment.seconds)
    process.kill()
    output, _ = process.communicate()
    assert process.returncode in (0, -9), output
    return process.returncode == -9


def finish(command):
    """Run to the end."""
    process = start(command)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def scalars(workdir):
    """All values in TensorBoard's files, as rows of metrics.jsonl."""
    from tensorboardX.proto.event_pb2 import Event

    rows = []
    for path in (workdir / "tensorboard").iterdir():
        content, start = path.read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            event = Event.FromString(content[start + 12 : start + 12 + length])
            start += length + 16
            values = {value.tag: value.simple_value for value in event.summary.value}
            rows += [{"step": event.step, **values}] if values else []
    return rows


def contents(workdir):
    """All that must be the same in two workdirs of one run."""
    paths = [path for path in sorted(workdir.rglob("*")) if path.is_file()]
    names = {path.relative_to(workdir).as_posix() for path in paths}
    random_parts = r"(?<=tensorboard/events\.).*|(?<=/d/).*"
    rows = read_metrics(workdir / "metrics.jsonl")
    newest = checkpoint.load_model(checkpoint.select(workdir, best=False).path)
    return {
        "names of files": {re.sub(random_parts, "…", name) for name in names},
        "files": {
            path.relative_to(workdir): path.read_bytes()
            for path in paths
            if path.parent.name == "report" or path.name in ("results.json", "rankings.npz")
        },
        "metrics": [_lasting(row) for row in rows],
        "TensorBoard": [_lasting(row) for row in scalars(workdir)],
        "parameters": {
            name: np.asarray(value).tobytes() for name, value in flatten(newest.model).items()
        },
    }


def _lasting(row):
    return {name: value for name, value in row.items() if name not in _TIMES}


def assert_same(found, expected):
    """Name what differs."""
    for part, value in expected.items():
        assert found[part] == value, f"{part} differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        os.environ |= {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        finish(command(folder / "peace", folder / "data"))
        expected = contents(folder / "peace")
        kills, runs = collections.Counter(), 0
        while kills.total() < args.kills:
            workdir = folder / f"run{runs}"
            line = command(workdir, folder / "data")
            for moment in moments(rng):
                if killed(line, workdir, moment):
                    kills[moment.name] += 1
                    newest = max(checkpoint.steps(workdir), default=0)
                    print(
                        f"kill {kills.total():2} in run {runs}: {moment.seconds:.2f} s into "
                        f"{moment.name:10}; {logged(workdir)} rows logged, checkpoint {newest}",
                        flush=True,
                    )
            finish(line)
            assert_same(contents(workdir), expected)
            runs += 1
    told = ", ".join(f"{count} in {name}" for name, count in sorted(kills.items()))
    print(f"{kills.total()} kills ({told}) of {runs} runs: all ended as the one left in peace")


if __name__ == "__main__":
    main()
