"""An installed wheel, outside the checkout: where a checkout is tested, that is for CI to run."""

import os
import pathlib
import subprocess
import sys

import pytest
from kill_runs import FLAGS

import aima_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN = """
from aima_jax import evaluation, training
from configs import synthetic

config = synthetic.get_config()
config.update({flags!r})
training.train(config, "run")
assert evaluation.evaluate(config, "run")["protocols"]["standard"]["gallery"] == 32
"""


@pytest.mark.skipif(
    ROOT in pathlib.Path(aima_jax.__file__).parents,
    reason="needs an installed wheel (.ci/run newest)",
)
def test_a_wheel_trains_two_steps_and_evaluates(tmp_path):
    flags = FLAGS | {
        "batch_size": 32,
        "epochs": 1,
        "data_dir": str(tmp_path / "data"),
        "report": False,
    }
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-P", "-c", TRAIN.format(flags=flags)],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    steps = (tmp_path / "run" / "metrics.jsonl").read_text().count('"train/loss"')
    assert steps == 2
