"""Checkpoints of a small state: which are kept, and that no damage to any file goes unnoticed."""

import dataclasses
import errno
import logging
import math
import pathlib
import random
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aima_jax import checkpoint
from aima_jax.parameters import model_id
from aima_jax.sharding import make_mesh
from aima_jax.training.saving import Saver, clear_damaged, restore_state
from aima_jax.training.step import TrainState

VISION = {"pixel_mean": [0.5, 0.4, 0.3], "pixel_std": [0.3, 0.2, 0.1]}
DESCRIPTION = checkpoint.Metadata(
    model={"clip": {"vision": VISION}},
    schema={},
    wording={},
    template="sentence",
    traits={},
    categories="",
    words={},
    config={},
)


def state(step, size=8):
    params = {"kernel": jnp.full((size,), step, jnp.float32)}
    return TrainState(jnp.int32(step), params, {"mu": params}, jnp.int32(-1), jnp.int32(0))


def save(workdir, scores):
    """Save a checkpoint for each Rank-1, None where there was no validation."""
    saver = Saver(workdir, DESCRIPTION)
    for step, score in enumerate(scores, start=1):
        saver.save(step, state(step), metrics=None if score is None else {"R1": score})
    saver.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, [0.1, 0.3])
    return folder


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def value(path, step=None):
    """What the only parameter of a checkpoint is full of."""
    place = {"mesh": make_mesh(), "min_shard_elements": 2**16}
    loaded = restore_state(path, jax.eval_shape(lambda: state(0)), **place)
    np.testing.assert_array_equal(loaded.params["kernel"], loaded.opt_state["mu"]["kernel"])
    assert int(loaded.step) == (step or int(path.name))
    return float(loaded.params["kernel"][0])


@pytest.mark.parametrize(
    ("scores", "kept", "best"),
    [
        ([0.1, 0.5, 0.3, 0.2, 0.4], [2, 4, 5], 2),
        ([0.1, 0.2, 0.3, 0.3], [3, 4], 4),
        ([None, 0.0, None, None], [2, 3, 4], 2),
        ([None, None, None], [2, 3], 3),
    ],
)
def test_the_newest_two_and_the_best_are_kept(tmp_path, scores, kept, best):
    save(tmp_path, scores)
    assert checkpoint.steps(tmp_path) == kept
    assert checkpoint.select(tmp_path).path.name == str(best)
    assert checkpoint.select(tmp_path, best=False).path.name == str(kept[-1])
    assert value(checkpoint.select(tmp_path).path) == best
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == set(map(str, kept))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, pathlib.Path.unlink])
def test_damage_to_any_file_is_named_and_the_one_before_is_taken(workdir, damage, caplog):
    newest = checkpoint.select(workdir).path
    names = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    assert len(names) > 8
    for name in names:
        content = (newest / name).read_bytes()
        if not content and damage is not pathlib.Path.unlink:
            continue
        damage(newest / name)
        with caplog.at_level(logging.WARNING):
            assert value(checkpoint.select(workdir).path) == 1
        assert name.as_posix() in caplog.text
        with pytest.raises(ValueError, match=f"2 is damaged: .*{name.name}"):
            checkpoint.load_model(newest)
        (newest / name).write_bytes(content)
        caplog.clear()
    assert value(checkpoint.select(workdir).path) == 2


def test_every_flipped_bit_of_the_manifest_is_noticed(workdir):
    """A Rank-1 that changed would change which checkpoint is the best."""
    path = checkpoint.select(workdir).path / checkpoint.MANIFEST
    content = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(content)), 300):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert checkpoint.damage(path.parent)
        assert checkpoint.score(path.parent) == math.inf


def test_what_a_kill_leaves_is_removed_and_what_is_damaged_is_set_aside(workdir):
    folder = workdir / "checkpoints"
    cut_off = shutil.copytree(folder / "2", folder / "3")
    (cut_off / checkpoint.MANIFEST).unlink()
    flip(folder / "2" / "_CHECKPOINT_METADATA")
    told = clear_damaged(workdir)
    assert len(told) == 2
    assert {path.name for path in folder.iterdir()} == {"1", "2.damaged"}


def test_nothing_damaged_is_ever_deleted(workdir):
    folder = workdir / "checkpoints"
    for number in range(2):
        shutil.copytree(folder / "1", folder / "3")
        (folder / "3" / "_CHECKPOINT_METADATA").write_text(f"damage {number}")
        assert len(clear_damaged(workdir)) == 1
    assert {path.name for path in folder.iterdir()} == {"1", "2", "3.damaged", "3.damaged.1"}
    for number, name in enumerate(("3.damaged", "3.damaged.1")):
        assert (folder / name / "_CHECKPOINT_METADATA").read_text() == f"damage {number}"
    assert clear_damaged(workdir) == []


def test_a_checkpoint_that_has_lost_its_manifest_is_not_taken_for_a_cut_off_save(workdir):
    (workdir / "checkpoints" / "1" / checkpoint.MANIFEST).unlink()
    assert len(clear_damaged(workdir)) == 1
    names = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert names == {"1.damaged", "2"}


@pytest.mark.parametrize("name", ["02", "2 copy", "²", "2.bak"])
def test_a_copy_under_another_name_is_a_persons_own(workdir, name):
    """Beside the checkpoints it is neither chosen nor touched, whatever its name."""
    own = shutil.copytree(workdir / "checkpoints" / "1", workdir / "checkpoints" / name)
    assert checkpoint.steps(workdir) == [1, 2]
    assert clear_damaged(workdir) == []
    save(workdir, [0.1, 0.2, 0.3])
    assert value(checkpoint.find_checkpoint(own), step=1) == 1


@pytest.mark.parametrize("name", [".DS_Store", "d/._x", "notes.txt"])
def test_a_file_that_is_not_the_checkpoints_own_is_no_damage(workdir, name):
    newest = checkpoint.select(workdir).path
    (newest / name).parent.mkdir(exist_ok=True)
    (newest / name).write_text("not ours")
    assert clear_damaged(workdir) == []
    assert checkpoint.select(workdir).path == newest
    assert value(newest) == 2


@pytest.fixture
def limit_files():
    """Files may not grow beyond a size, which writers meet as a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_save_that_fails_in_the_background_is_told_of_and_the_next_one_runs(workdir, limit_files):
    saver = Saver(workdir, DESCRIPTION)
    random_values = jax.random.normal(jax.random.key(0), (2**16,))
    limit_files(2**14)
    too_large = state(3, size=2**16)
    saver.save(3, TrainState(**vars(too_large) | {"params": {"kernel": random_values}}))
    with pytest.raises(OSError, match="a checkpoint could not be saved in"):
        saver.save(4, state(4))
    limit_files(resource.RLIM_INFINITY)
    saver.close()
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}
    assert value(checkpoint.select(workdir, best=False).path) == 4
    assert value(workdir / "checkpoints" / "2") == 2


def test_a_step_that_failed_after_a_save_does_not_touch_it(workdir):
    manifest = workdir / "checkpoints/2/MANIFEST.json"
    written = manifest.stat().st_mtime_ns
    saver = Saver(workdir, DESCRIPTION)
    saver.save_failed(dataclasses.replace(state(4), failed=jnp.int32(2)))
    saver.save_failed(dataclasses.replace(state(4), failed=jnp.int32(3)))
    saver.close()
    assert manifest.stat().st_mtime_ns == written
    assert int(checkpoint.select(workdir, best=False).path.name) == 3
    assert checkpoint.score(checkpoint.select(workdir).path) == 0.3


def test_a_manifest_that_cannot_be_written_leaves_no_checkpoint(workdir, monkeypatch):
    def full(path, content, **_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("aima_jax.files.write_json", full)
    saver = Saver(workdir, DESCRIPTION)
    saver.save(3, state(3))
    with pytest.raises(OSError, match="No space left on device"):
        saver.close()
    assert checkpoint.steps(workdir) == [1, 2]


def test_a_checkpoint_says_who_its_model_is(workdir):
    params = {"kernel": np.full(8, 2, np.float32)}
    expected = model_id(params, **VISION)
    assert checkpoint.read_metadata(workdir / "checkpoints" / "2").model_id == expected
    for other in (
        model_id({"kernel": np.full((2, 4), 2, np.float32)}, **VISION),
        model_id({"kernel": np.full(8, 3, np.float32)}, **VISION),
        model_id({"bias": np.full(8, 2, np.float32)}, **VISION),
        model_id(params, **VISION | {"pixel_std": [0.3, 0.2, 0.2]}),
    ):
        assert other != expected


def test_a_sharded_model_is_the_same_model(tmp_path):
    """However the parameters are spread over devices."""
    value = np.arange(64, dtype=np.float32)
    sharding = NamedSharding(make_mesh(fsdp=4), PartitionSpec("fsdp"))
    params = {"kernel": jax.device_put(value, sharding)}
    saver = Saver(tmp_path, DESCRIPTION)
    saver.save(1, dataclasses.replace(state(1), params=params))
    saver.close()
    found = checkpoint.read_metadata(tmp_path / "checkpoints" / "1").model_id
    assert found == model_id({"kernel": value}, **VISION)


def test_the_next_step_may_take_the_arrays_that_are_saved(tmp_path):
    saver = Saver(tmp_path, DESCRIPTION)
    before = state(1, size=2**16)
    saver.save(1, before)
    jax.jit(lambda x: x + 1, donate_argnums=0)(before.params["kernel"]).block_until_ready()
    saver.close()
    expected = model_id({"kernel": np.ones(2**16, np.float32)}, **VISION)
    assert checkpoint.read_metadata(tmp_path / "checkpoints" / "1").model_id == expected


def test_the_choice_says_why(workdir):
    chosen = checkpoint.select(workdir)
    assert (chosen.reason, chosen.passed_over) == ("best validation Rank-1", ())
    assert checkpoint.select(workdir, best=False).reason == "newest"
    flip(workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA")
    chosen = checkpoint.select(workdir)
    assert chosen.path.name == "1"
    [line] = chosen.passed_over
    assert line.startswith(str(workdir / "checkpoints" / "2")) and "has changed" in line


def test_a_choice_without_validation_says_so(tmp_path):
    save(tmp_path, [None, None])
    assert checkpoint.select(tmp_path).reason == "newest: none validated"


@pytest.mark.parametrize(
    ("scores", "order"),
    [({1: 0.5, 2: 0.5, 3: 0.1}, [2, 1, 3]), ({1: -1.0, 2: -1.0}, [2, 1]), ({}, [])],
)
def test_of_equal_scores_the_latest_is_the_best(scores, order):
    assert checkpoint.best_first(scores) == order


def test_a_folder_of_numbers_that_is_not_a_checkpoint_is_left_alone(workdir):
    own = workdir / "checkpoints" / "2024"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    assert clear_damaged(workdir) == []
    save(workdir, [0.1, 0.2, 0.3])
    assert (own / "notes.txt").read_text() == "mine"
    assert checkpoint.steps(workdir) == [2, 3]


def test_the_state_of_another_optimizer_is_refused_with_what_to_do(workdir):
    place = {"mesh": make_mesh(), "min_shard_elements": 2**16}
    other = dataclasses.replace(state(0), opt_state={"momentum": state(0).params})
    with pytest.raises(ValueError, match=r"another optimizer.*--config\.init_from="):
        restore_state(workdir / "checkpoints" / "2", jax.eval_shape(lambda: other), **place)
