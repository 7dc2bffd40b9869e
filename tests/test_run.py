"""Whole runs on a few rendered pedestrians: trained, interrupted, damaged, resumed, evaluated."""

import concurrent.futures
import json
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time

import host_runs
import kill_runs
import numpy as np
import pytest
from kill_runs import DATASET, FLAGS, STEPS

from aima_jax import checkpoint, evaluation, training
from aima_jax.parameters import flatten
from aima_jax.training import loop
from aima_jax.training.setup import open_run
from aima_jax.workdir import lock_workdir, read_metrics
from configs import pa100k, synthetic
from tfds_builders.prepare import prepare

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(DATASET, data_dir=folder)
    return folder


@pytest.fixture
def config(data_dir):
    return make_config(data_dir)


def make_config(data_dir, **changes):
    config = synthetic.get_config()
    config.update(FLAGS | {"data_dir": str(data_dir), "report": False} | changes)
    return config


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A workdir that was trained without interruption, in a thread, and evaluated."""
    workdir = tmp_path_factory.mktemp("finished")
    config = make_config(data_dir, report=True, save_rankings=True)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with concurrent.futures.ThreadPoolExecutor() as pool:  # as a notebook's widget starts it
        pool.submit(training.train, config, workdir).result()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    evaluation.evaluate(config, workdir)
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def unfinished(copy):
    """As the run was two steps before its end."""
    shutil.rmtree(newest(copy))
    assert newest(copy).name == str(STEPS - 2)
    return copy


def newest(workdir):
    return checkpoint.select(workdir, best=False).path


def parameters(path):
    return {name: np.asarray(p) for name, p in flatten(checkpoint.load_model(path).model).items()}


def losses(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def assert_same_run(workdir, other):
    """The same losses step for step, and the same parameters, to the last bit."""
    assert losses(workdir) == losses(other)
    expected = parameters(newest(other))
    for name, value in parameters(newest(workdir)).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_workdir_holds_the_whole_run(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "rankings.npz",
        "report",
        "results.json",
        "tensorboard",
    }
    assert [step for step, _ in losses(finished)] == list(range(1, STEPS + 1))
    results = json.loads((finished / "results.json").read_text())
    standard = results["protocols"]["standard"]
    assert results["split"] == "test"
    assert standard["gallery"] == 32
    assert standard["queries"] == standard["seen"]["queries"] + standard["unseen"]["queries"]
    assert 0 <= standard["R1"] <= standard["R5"] <= standard["R10"] <= 1
    with np.load(finished / "rankings.npz") as rankings:
        assert rankings["filename"].shape == (standard["queries"], 32)
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert not [x for x in (*results, *standard, *names - {".lock"}) if x not in page]
    trained, evaluated = json.loads((finished / "environment.json").read_text())
    assert (trained["first_step"], evaluated["evaluated_step"]) == (0, results["step"])
    assert trained["dataset"]["name"] == evaluated["dataset"]["name"] == DATASET
    assert trained["dataset"]["checksum"] != evaluated["dataset"]["checksum"]


def test_the_learning_rate_warms_up_and_ends_with_the_last_step(finished, config):
    """Half an epoch of four steps from a tenth of the peak, then a cosine to 0 at the eighth."""
    logged = {
        row["step"]: row["train/learning_rate"]
        for row in read_metrics(finished / "metrics.jsonl")
        if "train/learning_rate" in row
    }
    cosine = [0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    expected = config.optimizer.learning_rate * np.array([0.1, 0.55, *cosine])
    np.testing.assert_allclose([logged[step + 1] for step in range(STEPS)], expected, rtol=1e-5)


def test_a_workdir_is_for_one_process(copy, config):
    with lock_workdir(copy):
        for use in (training.train, training.replay, evaluation.evaluate):
            with pytest.raises(ValueError, match="another process is using"):
                use(config, copy)


def test_evaluation_makes_no_workdir(config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no workdir .*check --workdir"):
        evaluation.evaluate(config, tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_evaluation_in_another_process_gives_the_same_numbers(copy, data_dir):
    expected = json.loads((copy / "results.json").read_text())
    (copy / "results.json").unlink()
    flags = ("--config.eval_batch_size=16", "--config.deterministic")
    done = run_py(copy, data_dir, "--mode=evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "results.json").read_text()) == expected
    assert "random ranking" in done.stdout


def test_a_finished_run_says_so(copy, config, capsys):
    training.train(config, copy)
    assert f"all {STEPS} steps are done" in capsys.readouterr().out


def test_an_interrupted_run_resumes_bit_for_bit(finished, config, tmp_path, monkeypatch):
    advance = loop.Progress.advance

    def interrupt_after_step_3(self, done):
        if done == 4:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, done)

    monkeypatch.setattr(loop.Progress, "advance", interrupt_after_step_3)
    with pytest.raises(training.Interrupted, match=r"SIGTERM: saved step \d of 8"):
        training.train(config, tmp_path)
    monkeypatch.undo()
    assert 4 <= int(newest(tmp_path).name) < STEPS
    training.train(config, tmp_path)
    assert_same_run(tmp_path, finished)


def test_a_killed_run_ends_as_one_left_in_peace(finished, data_dir, tmp_path):
    """Two kills of many: `python tests/tools/kill_runs.py` kills at random moments."""
    command = kill_runs.command(tmp_path / "run", data_dir)
    for moment in (kill_runs.SAVING, kill_runs.EVALUATING):
        assert kill_runs.killed(command, tmp_path / "run", moment._replace(seconds=0.1))
    kill_runs.finish(command)
    kill_runs.assert_same(kill_runs.contents(tmp_path / "run"), kill_runs.contents(finished))


def test_a_host_that_dies_stops_the_other_and_one_process_goes_on(
    finished, config, data_dir, tmp_path
):
    """`python tests/tools/host_runs.py` compares whole runs on two hosts."""
    workdir = tmp_path / "run"
    command = kill_runs.command(workdir, data_dir)
    host, output, _ = host_runs.lose_a_host(command, workdir, devices=1)
    assert host.returncode not in (0, -signal.SIGKILL)
    assert "a collective has failed" in output or "another task died" in output
    assert "Traceback" not in output
    training.train(config, workdir)
    np.testing.assert_allclose(host_runs.losses(workdir), host_runs.losses(finished), rtol=1e-4)


def test_a_damaged_checkpoint_is_passed_over(finished, copy, config, capsys):
    path = newest(copy)
    victim = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert newest(copy) != path
    with pytest.raises(ValueError, match=f"damaged: .*{victim.name} has changed"):
        checkpoint.load_model(path)
    config.profile = "100:105"
    training.train(config, copy)
    told = capsys.readouterr().out
    assert "passed over the checkpoint" in told
    assert "config.profile='100:105' traces nothing: this run takes only steps 6 to 7" in told
    assert_same_run(copy, finished)


def test_without_any_sound_checkpoint_nothing_is_evaluated(copy, config):
    for manifest in copy.glob("checkpoints/*/MANIFEST.json"):
        manifest.unlink()
    with pytest.raises(FileNotFoundError, match=r"MANIFEST\.json is missing"):
        evaluation.evaluate(config, copy)


def test_the_best_checkpoint_stays(finished):
    rows = read_metrics(finished / "metrics.jsonl")
    best = max(row["val/R1"] for row in rows if "val/R1" in row)
    assert checkpoint.score(checkpoint.select(finished).path) == best
    assert newest(finished).name == str(STEPS)


def test_starting_from_another_run(finished, data_dir, tmp_path):
    """Another dataset size has other categories: all but the identity classifier is taken."""
    dataset = "synthetic_pedestrians/train48-val16-test32-seed1"
    prepare(dataset, data_dir=data_dir)
    config = make_config(data_dir, dataset=dataset, init_from=str(finished))
    before, after = (
        parameters(checkpoint.select(finished).path),
        open_run(config, tmp_path).state.params,
    )
    assert before["classifier.kernel"].shape != after["classifier.kernel"].shape
    for name in before.keys() - {"classifier.kernel", "classifier.bias"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_a_full_disk_leaves_the_checkpoints_before_it(unfinished, config, monkeypatch, capsys):
    from orbax.checkpoint import v1 as ocp

    save = ocp.training.Checkpointer.save_checkpointables_async

    def full_at_step_7(self, step, *arguments, **options):
        if step == 7:
            raise OSError(28, "No space left on device")
        return save(self, step, *arguments, **options)

    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", full_at_step_7)
    config.checkpoint_every_steps = 1
    with pytest.raises(OSError, match="No space left on device"):
        training.train(config, unfinished)
    assert newest(unfinished).name == "6"
    config.on_save_error = "continue"
    training.train(config, unfinished)
    assert newest(unfinished).name == str(STEPS)
    assert "training continues" in capsys.readouterr().out


def test_a_step_that_is_not_finite_stops_the_run_and_is_replayed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["my code/run.py", "--config=synthetic.py"])
    config.optimizer.learning_rate = 1e30
    with pytest.raises(FloatingPointError, match=r"step 1: loss.* not finite") as failure:
        training.train(config, tmp_path)
    assert "train/" in str(failure.value)
    replay = "Replay it: python 'my code/run.py' --config=synthetic.py --mode=replay\n"
    assert replay in str(failure.value)
    replayed = training.replay(config, tmp_path)
    assert not np.isfinite(replayed["loss"])
    assert [step for step, _ in losses(tmp_path)] == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 12}, "is not a multiple of the 8 devices"),
        ({"batch_size": 128}, "fewer than config.batch_size=128"),
        ({"micro_batch_size": 5}, "must divide config.batch_size"),
        ({"mesh": {"fsdp": 3}}, "must use all 8 devices"),
        ({"template": "poem"}, "template"),
        ({"dataset": "mars"}, "mars"),
        ({"dtype": "float16", "epochs": 0}, r"dtype.*\n.*epochs"),
        ({"init_from": "/no/run"}, "no sound checkpoint"),
        ({"profile": "5"}, "config.profile='5' must be two steps, like"),
        ({"data_dir": "gs://bucket/data"}, "gs:// are not supported"),
    ],
)
def test_bad_input_is_refused_with_a_message(config, tmp_path, changes, message):
    config.update(changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        training.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_missing_dataset_folder_is_named(tmp_path):
    config = pa100k.get_config("small")
    config.manual_dir = str(tmp_path / "nothing")
    config.data_dir = str(tmp_path / "prepared")
    with pytest.raises(FileNotFoundError, match="nothing"):
        training.train(config, tmp_path / "run")
    assert not (tmp_path / "prepared" / "pa100k").exists()


def test_the_command_line_answers_with_one_line_and_exit_code_2(tmp_path, data_dir):
    done = run_py(tmp_path / "run", data_dir, "--config.colour=3")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: unknown config field 'colour'")
    assert "Traceback" not in done.stderr


def test_a_notebook_may_run_it_again(tmp_path, monkeypatch, capsys):
    """In one process, as `%run run.py` does, with flags of its own each time."""
    monkeypatch.chdir(ROOT)
    for epochs in (0, -1):
        flags = ["--config=configs/synthetic.py", f"--config.epochs={epochs}"]
        monkeypatch.setattr(sys, "argv", ["run.py", *flags, f"--workdir={tmp_path / 'run'}"])
        with pytest.raises(SystemExit, match="2"):
            runpy.run_path("run.py", run_name="__main__")
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: config.epochs={epochs} must be a whole number, 1 or more")
    monkeypatch.setattr(sys, "argv", ["run.py", "--help"])
    runpy.run_path("run.py", run_name="__main__")
    assert "--workdir" in capsys.readouterr().out


def test_ctrl_c_ends_the_wait_for_the_compiler():
    class Lowered:
        def compile(self):
            time.sleep(60)

    start = time.monotonic()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    # A shell has its background jobs ignore SIGINT, and Python then leaves it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            loop._compile(Lowered())
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 30


def test_what_the_compiler_raises_is_raised():
    class Lowered:
        def compile(self):
            raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        loop._compile(Lowered())


def run_py(workdir, data_dir, *flags):
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "--config=configs/synthetic.py",
        f"--config.dataset={DATASET}",
        f"--config.data_dir={data_dir}",
        f"--workdir={workdir}",
        *flags,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
