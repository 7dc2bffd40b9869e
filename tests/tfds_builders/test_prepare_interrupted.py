"""Preparing that is killed, interrupted, or done by several processes at once."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import PIL.Image
import pytest
from stand_ins import folder_contents, small_pa100k

import tfds_builders.prepare as prepare_module
from aima_jax.cli import main
from tfds_builders import records
from tfds_builders.prepare import check, find, prepare

PREPARE = (sys.executable, "-m", "tfds_builders.prepare", "pa100k")
PROJECT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def ctrl_c():
    """SIGINT as in a terminal, also in what is started: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(raw, data, **options):
    return subprocess.Popen(
        [*PREPARE, f"--manual_dir={raw}", f"--data_dir={data}"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def long_raw(tmp_path):
    """A PA-100K that takes a few seconds to prepare, so that it can be interrupted."""
    raw = small_pa100k(tmp_path / "long", train=6_000, val=2, test=2)
    large = PIL.Image.effect_noise((256, 256), 50)
    for number in range(1, 8):
        path = raw / "PA-100K" / "release_data" / "release_data" / f"{number:06d}.jpg"
        with path.open("wb") as file:  # written in place, for all names that share it
            large.save(file, "JPEG")
    return raw


def wait_for_records(data):
    """Wait until TFDS has begun to write records."""
    deadline = time.monotonic() + 60
    while not any(data.rglob("*.array_record*")):
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.02)


def test_killed_on_the_way(long_raw, raw, data):
    process = start(long_raw, data)
    wait_for_records(data)
    process.kill()
    process.communicate()
    assert find("pa100k", data_dir=data) is None
    assert any(data.rglob("*.array_record*"))  # what was left behind, out of the way
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    assert check("pa100k", data_dir=data)["counts"] == {"train": 6, "val": 1, "test": 3}
    assert folder_contents(data) == [
        "pa100k",
        "pa100k/1.0.0",
        *(f"pa100k/1.0.0/{path}" for path in folder_contents(folder)),
    ]


def test_killed_when_tfds_was_done(raw, tmp_path, data):
    """What TFDS takes for a complete dataset lacks our labels, and may be of other pictures."""
    other = prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "other")
    place = data / "pa100k" / f".1.0.0.preparing-{prepare_module._system()}-{ended_process()}-x"
    left = place / "pa100k" / "1.0.0"
    shutil.copytree(other, left)
    (left / "stray.txt").touch()
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    assert folder_contents(folder) == folder_contents(other)
    assert [path.name for path in (data / "pa100k").iterdir()] == ["1.0.0"]


def ended_process():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_another_host_left_is_removed_after_a_day_without_a_change(raw, data):
    """Nothing else tells whether its process still runs."""
    places = {
        name: data / "pa100k" / f".1.0.0.preparing-{name}"
        for name in ("0123456789ab-1-x", "0123456789ab-1-y", "")
    }
    places["ours"] = data / "pa100k" / f".1.0.0.preparing-{prepare_module._system()}-1-x"
    for place in places.values():
        (place / "pa100k").mkdir(parents=True)
        (place / "pa100k" / "some.array_record").touch()
    yesterday = time.time() - 25 * 60 * 60
    for name in ("0123456789ab-1-x", "ours", ""):
        for path in (*places[name].rglob("*"), places[name]):
            os.utime(path, (yesterday, yesterday))
    prepare("pa100k", manual_dir=raw, data_dir=data)
    kept = sorted(path.name for path in (data / "pa100k").iterdir() if path.name != "1.0.0")
    assert kept == sorted([places["0123456789ab-1-y"].name, places["ours"].name])


@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_on_the_way(long_raw, data):
    process = start(long_raw, data)
    wait_for_records(data)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted; nothing was left behind" in errors
    assert "Traceback" not in errors
    assert not data.exists()


class Ignored:
    """What raises where Python ignores it."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("place", ["while records are written", "after them"])
def test_an_interruption_that_python_ignores_is_not_lost(place, raw, data, capsys, monkeypatch):
    written = []

    def shown(items, total, name):
        for item in items:
            if place == "while records are written" and not written:
                Ignored()
            written.append(item)
            yield item

    def stored(*arguments):
        if place == "after them":
            Ignored()
        return read_back(*arguments)

    read_back = prepare_module._stored
    monkeypatch.setattr(records, "_shown", shown)
    monkeypatch.setattr(prepare_module, "_stored", stored)
    assert main(["prepare", "pa100k", f"--manual_dir={raw}", f"--data_dir={data}"]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was left behind\n"
    assert len(written) == (1 if place == "while records are written" else 10)
    assert not data.exists()
    monkeypatch.undo()
    prepare("pa100k", manual_dir=raw, data_dir=data)  # which knows nothing of it


LOOP = """
import gc, signal, sys
import jax
from tfds_builders import ctrl_c

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.unraisablehook = lambda unraisable: None
callback, = (found for found in gc.callbacks if found.__module__.startswith("jax."))

def interrupted(phase, info):  # Ctrl-C while JAX's callback runs
    gc.callbacks[:] = [callback]
    callback(phase, info)
    signal.raise_signal(signal.SIGINT)

def work(items):
    gc.callbacks[:] = [interrupted]
    for _ in items:
        gc.collect()

try:
    if sys.argv[1] == "noticed":
        with ctrl_c.noticed():
            work(ctrl_c.checked(range(3)))
    else:
        work(range(3))
except KeyboardInterrupt:
    print("interrupted")
else:
    print("lost")
"""


@pytest.mark.parametrize(("loop", "outcome"), [("plain", "lost"), ("noticed", "interrupted")])
def test_ctrl_c_in_jaxs_callback_of_the_garbage_collector(loop, outcome):
    """Python loses it there. Where JAX has no such callback any more, `ctrl_c` can go."""
    command = [sys.executable, "-c", LOOP, loop]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == [outcome]


@pytest.mark.parametrize("host", ["this", "another"])
def test_two_at_once(long_raw, raw, data, host, monkeypatch):
    """Each works in a place of its own; what is there first stays.

    Of a process on another host nobody here can tell whether it still runs.
    """
    if host == "another":
        monkeypatch.setattr(prepare_module, "_system", lambda: "0123456789ab")
        monkeypatch.setattr(prepare_module, "is_alive", lambda pid: False)
    first = start(long_raw, data)
    wait_for_records(data)
    first.send_signal(signal.SIGSTOP)
    folder = prepare("pa100k", manual_dir=raw, data_dir=data)
    written = (folder / "manifest.json").read_bytes()
    first.send_signal(signal.SIGCONT)
    output, _ = first.communicate()
    assert first.returncode == 0
    assert output == "pa100k is prepared: train 6, val 1, test 3\n"
    assert check("pa100k", data_dir=data)["counts"]["train"] == 6
    assert (folder / "manifest.json").read_bytes() == written
    assert [path.name for path in (data / "pa100k").iterdir()] == ["1.0.0"]


def test_many_at_once_without_any_lock(raw, data):
    """As on several hosts, of which none sees the others' locks or processes."""
    processes = [start(raw, data) for _ in range(3)]
    for process in processes:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert output == "pa100k is prepared: train 6, val 1, test 3\n"
    assert check("pa100k", data_dir=data)["counts"]["train"] == 6
    assert [path.name for path in (data / "pa100k").iterdir()] == ["1.0.0"]
