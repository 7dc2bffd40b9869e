"""metrics.jsonl has each step once, whatever happened before."""

import contextlib
import json
import math
import resource
import signal

import numpy as np
import pytest
from kill_runs import DATASET, STEPS, command, scalars, start

from aima_jax.evaluation.report import write_report
from aima_jax.training.logs import MetricsWriter
from aima_jax.workdir import read_metrics
from tfds_builders.prepare import prepare


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


def test_what_is_not_finite_is_null_and_read_as_nan(tmp_path):
    for first_step, values in ((0, [math.nan, math.inf, 1.5]), (3, [-math.inf])):
        writer = MetricsWriter(tmp_path, first_step=first_step)  # the second reads the first's
        for step, value in enumerate(values, first_step + 1):
            writer.write(step, {"train/loss": value})
        writer.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=refuse)["train/loss"] for line in lines]
    assert found == [None, None, 1.5, None]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    np.testing.assert_array_equal(
        [row["train/loss"] for row in rows], [math.nan, math.nan, 1.5, math.nan]
    )
    assert len(scalars(tmp_path)) == 4
    write_report(tmp_path / "report", metrics_path=tmp_path / "metrics.jsonl", rankings=[])
    assert (tmp_path / "report" / "curves.png").stat().st_size > 1000


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    write(tmp_path, 0, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "tra')
    write(tmp_path, 3, [4])
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 4]


def test_a_full_disk_cuts_no_line_and_loses_none(tmp_path):
    """Files may not grow beyond 150 bytes, which writing meets as a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = MetricsWriter(tmp_path, first_step=0)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
        for step in range(1, 7):
            with pytest.raises(OSError, match="events") if step > 2 else contextlib.nullcontext():
                writer.write(step, {"train/loss": step / 2})
        assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
        assert [row["step"] for row in scalars(tmp_path)] == [1, 2]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    writer.write(7, {"train/loss": 3.5})
    writer.close()
    expected = [{"step": step, "train/loss": step / 2} for step in range(1, 8)]
    assert read_metrics(tmp_path / "metrics.jsonl") == scalars(tmp_path) == expected


def test_a_run_outlives_who_reads_its_output(tmp_path):
    """As `python run.py … 2>&1 | head -1`."""
    prepare(DATASET, data_dir=tmp_path / "data")
    process = start(command(tmp_path / "run", tmp_path / "data", "--config.epochs=1"))
    assert process.stdout and process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert sum("train/loss" in row for row in rows) == STEPS // 2
    assert (tmp_path / "run" / "results.json").is_file()
