"""metrics.jsonl has each step once, whatever happened before."""

import json

from aima_jax.training.metrics import MetricsWriter
from aima_jax.workdir import read_metrics


def write(folder, first_step, steps):
    writer = MetricsWriter(folder, first_step=first_step)
    for step in steps:
        writer.write(step, {"train/loss": step / 2})
    writer.close()


def test_a_resume_cuts_back_to_its_step(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3, 4, 5])
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    write(tmp_path, 0, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "tra')
    write(tmp_path, 3, [4])
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 4]
