"""A model is read from any folder that holds one, by what is in it, and needs nothing else."""

import shutil
import subprocess
import sys

import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aima_jax import checkpoint
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, TextConfig, ViTConfig
from aima_jax.parameters import flatten, model_id
from aima_jax.training.saving import Saver
from aima_jax.training.step import TrainState
from tfds_builders.pa100k.schema import SCHEMA
from tfds_builders.pa100k.wording import WORDING

SIZE = (16, 8)
CATEGORIES = np.eye(3, SCHEMA.size, dtype=np.uint8)
TRAITS = {"cameras": False, "query_folder": None, "identities": False}
TOWER = {"width": 16, "layers": 1, "heads": 1, "mlp_width": 16}


@pytest.fixture(scope="module")
def model():
    vision = ViTConfig(**TOWER, patch_size=8, patch_stride=8, pixel_mean=(0.5, 0.4, 0.3))
    clip = CLIPConfig(SIZE, 64, vision, TextConfig(**TOWER, vocabulary=100))
    return AIMA(AIMAConfig(clip, num_categories=3, fusion_depth=1), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def workdir(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "checkpoints" / "run"
    description = checkpoint.Metadata(
        model=model.config.to_dict(),
        schema=SCHEMA.to_dict(),
        wording=WORDING.to_dict(),
        template="list",
        traits=TRAITS,
        categories=checkpoint.pack_categories(CATEGORIES),
        words={"from_clip": True, "trained": [320, 786]},
        config={"image_size": SIZE, "mesh": {"min_shard_elements": 2**16}},
        dataset={"name": "pa100k", "checksum": "c", "categories": 3},
    )
    saver = Saver(folder, description)
    params = flatten(model)
    saver.save(7, TrainState.create(params, optax.sgd(0.1), frozenset(params)))
    saver.close()
    return folder


def test_a_checkpoint_holds_all_that_is_needed_to_ask_it(workdir, model):
    restored = checkpoint.load_model(workdir)
    params = {name: np.asarray(value) for name, value in flatten(model).items()}
    found = {name: np.asarray(value) for name, value in flatten(restored.model).items()}
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in params.items()
    }
    vision = model.config.clip.vision
    assert restored.model_id == model_id(params, vision.pixel_mean, vision.pixel_std)
    assert restored.model.config == model.config
    assert (restored.schema, restored.wording) == (SCHEMA, WORDING)
    assert (restored.template.name, restored.template.wording) == ("list", WORDING)
    assert restored.traits == TRAITS
    np.testing.assert_array_equal(restored.categories, CATEGORIES)
    assert restored.words == {"from_clip": True, "trained": [320, 786]}
    assert restored.dataset["name"] == "pa100k"
    assert (restored.step, restored.path) == (7, workdir / "checkpoints" / "7")


def test_a_model_is_used_where_no_builder_can_be_imported(workdir):
    code = (
        "import sys; sys.modules['tfds_builders'] = None\n"
        "from aima_jax import checkpoint\n"
        "print(checkpoint.load_model(sys.argv[1]).step)"
    )
    command = [sys.executable, "-c", code, str(workdir)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "7\n"


def by_copy(workdir, folder):
    return shutil.copytree(workdir / "checkpoints" / "7", folder / "best model")


def by_link_to_checkpoint(workdir, folder):
    (folder / "link").symlink_to(workdir / "checkpoints" / "7")
    return folder / "link"


def by_link_to_workdir(workdir, folder):
    (folder / "link").symlink_to(workdir)
    return folder / "link"


def by_links_within(workdir, folder):
    """As a person keeps runs on another disk."""
    (folder / "run").mkdir()
    (folder / "run" / "checkpoints").symlink_to(workdir / "checkpoints")
    return folder / "run"


def by_home(workdir, folder):
    (folder / "run").symlink_to(workdir)
    return "~/run"


def by_itself(workdir, folder):
    return workdir / "checkpoints" / "7"


WAYS = [by_copy, by_link_to_checkpoint, by_link_to_workdir, by_links_within, by_home, by_itself]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_known_by_what_it_is_not_by_its_name(way, workdir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = way(workdir, tmp_path)
    assert checkpoint.is_run(path)
    restored = checkpoint.load_model(path)
    assert restored.step == 7
    assert restored.model_id == checkpoint.load_model(workdir).model_id


def test_other_folders_are_not_runs(tmp_path):
    (tmp_path / "checkpoints.txt").touch()
    assert not checkpoint.is_run(tmp_path)
    assert not checkpoint.is_run(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no sound checkpoint in"):
        checkpoint.load_model(tmp_path)
    with pytest.raises(ValueError, match="gs:// are not supported"):
        checkpoint.load_model("gs://bucket/run")


def test_a_model_is_verified_once_in_a_process(workdir, tmp_path, monkeypatch):
    from aima_jax import files

    path = shutil.copytree(workdir / "checkpoints" / "7", tmp_path / "model")
    monkeypatch.setattr(files, "_SETTLED_NANOSECONDS", -1)
    read = []
    digest = files.hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *a: read.append(1) or digest(*a))
    checkpoint.load_model(path)
    assert len(read) == len(checkpoint.read_sealed_json(path / "MANIFEST.json")["files"])
    checkpoint.load_model(path)
    assert len(read) == len(checkpoint.read_sealed_json(path / "MANIFEST.json")["files"])
    victim = max(path.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ValueError, match=f"{victim.name} has changed"):
        checkpoint.load_model(path)


shapes = st.tuples(st.integers(0, 5), st.integers(1, 40))


@given(bits=arrays(np.uint8, shapes, elements=st.integers(0, 1)))
def test_categories_are_unpacked_as_they_were_packed(bits):
    packed = checkpoint.pack_categories(bits)
    np.testing.assert_array_equal(checkpoint.unpack_categories(packed, bits.shape[1]), bits)
