"""An exported file is the checkpoint it came from: it says the same, and is the same model."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import aima_jax
from aima_jax.checkpoint import Metadata, load_model, pack_categories
from aima_jax.cli import main
from aima_jax.convert import exported_words, load_aima, load_pretrained, restore, save_aima
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, TextConfig, ViTConfig
from aima_jax.parameters import flatten
from aima_jax.training.saving import Saver
from aima_jax.training.step import TrainState
from tfds_builders.synthetic_pedestrians.schema import SCHEMA
from tfds_builders.synthetic_pedestrians.wording import WORDING

SIZE = (32, 16)
TOWER = {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
CLIP_CONFIG = CLIPConfig(
    image_size=SIZE,
    dim=64,
    vision=ViTConfig(**TOWER, patch_size=8, patch_stride=8, pixel_mean=(0.5, 0.4, 0.3)),
    text=TextConfig(**TOWER, activation="gelu"),
)
CATEGORIES = np.random.default_rng(0).integers(0, 2, (3, SCHEMA.size)).astype(np.uint8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = AIMA(AIMAConfig(CLIP_CONFIG, num_categories=3, fusion_depth=1), rngs=nnx.Rngs(0))
    description = Metadata(
        model=model.config.to_dict(),
        schema=SCHEMA.to_dict(),
        wording=WORDING.to_dict(),
        template="list",
        traits={"cameras": True, "query_folder": "query", "identities": False},
        categories=pack_categories(CATEGORIES),
        words={"from_clip": False, "trained": [320, 1237]},
        config={"image_size": list(SIZE), "mesh": {"min_shard_elements": 2**16}, "seed": 3},
        dataset={"name": "some/data", "checksum": "abc", "categories": 3},
    )
    saver = Saver(folder, description)
    params = flatten(model)
    saver.save(7, TrainState.create(params, optax.sgd(0.1), frozenset(params)))
    saver.close()
    return folder


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "model.safetensors"
    assert main(["convert", "aima", str(workdir), str(file)]) == 0
    return file


def test_an_export_says_all_that_its_checkpoint_says_and_is_the_same_model(workdir, exported):
    restored = load_model(workdir)
    for loaded in (load_aima(exported), restore(exported), restore(workdir)):
        assert len(loaded.model_id) == 64
        for field in dataclasses.fields(restored):
            ours, theirs = getattr(loaded, field.name), getattr(restored, field.name)
            if field.name == "categories":
                assert np.array_equal(ours, CATEGORIES) and np.array_equal(theirs, CATEGORIES)
            elif field.name not in ("model", "path"):
                assert ours == theirs, field.name
        assert loaded.model.config == restored.model.config
        parameters = flatten(loaded.model)
        for name, array in flatten(restored.model).items():
            assert np.array_equal(array, parameters[name]), name
    assert load_aima(exported).path == exported


def test_an_export_is_asked_as_its_run_is(workdir, exported):
    query = [{"gender": "female", "upper_color": "red"}]
    by_run, by_file = aima_jax.load(workdir), aima_jax.load(str(exported))
    assert np.array_equal(by_run.encode_attributes(query), by_file.encode_attributes(query))
    picture = np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8)
    assert np.array_equal(by_run.encode_images([picture]), by_file.encode_images([picture]))


@pytest.mark.parametrize("name", ["best", "best.v2", "best.bin"])
def test_an_export_is_known_by_what_is_in_it(exported, tmp_path, name):
    """Copied under another name, and reached through a link."""
    (tmp_path / name).write_bytes(exported.read_bytes())
    (tmp_path / "link").symlink_to(name)
    assert restore(tmp_path / "link").model_id == restore(exported).model_id
    assert exported_words(tmp_path / "link") == exported_words(exported)
    skeleton = load_weights(tmp_path / "link")
    assert skeleton.config.clip == CLIP_CONFIG


def rewritten(file, path, *, arrays=None, metadata=None):
    """A file with other arrays or metadata in it."""
    with safe_open(file, framework="numpy") as content:
        said = content.metadata()
    save_file(arrays or load_file(file), path, metadata or said)
    return path


def load_weights(path):
    return load_pretrained(path, num_categories=3, image_size=SIZE)


def test_changed_arrays_and_pixels_are_not_the_model_any_more(exported, tmp_path):
    arrays = load_file(exported)
    name = "clip.text.final_norm.bias"
    changed = arrays | {name: arrays[name] + np.float32(1e-6)}
    path = rewritten(exported, tmp_path / "a.safetensors", arrays=changed)
    with safe_open(exported, framework="numpy") as content:
        description = json.loads(content.metadata()["description"])
    description["model"]["clip"]["vision"]["pixel_mean"] = [0.5, 0.4, 0.31]
    said = {"aima": "2", "description": json.dumps(description)}
    other = rewritten(exported, tmp_path / "b.safetensors", metadata=said)
    for load in (load_aima, load_weights):
        for damaged in (path, other):
            with pytest.raises(ValueError, match=r"safetensors is damaged: its arrays have"):
                load(damaged)
    del arrays[name]
    path = rewritten(exported, tmp_path / "c.safetensors", arrays=arrays)
    with pytest.raises(ValueError, match=rf"missing \(1\): {name}"):
        load_aima(path)


def test_a_model_alone_starts_trainings_and_is_asked_nothing(workdir, tmp_path):
    model = load_model(workdir).model
    save_aima(model, tmp_path / "alone.safetensors")
    with pytest.raises(ValueError, match=r"a bare model.*--config\.weights="):
        load_aima(tmp_path / "alone.safetensors")
    started = load_weights(tmp_path / "alone.safetensors")
    assert started.config == model.config
    assert jax.tree.all(jax.tree.map(np.array_equal, flatten(started), flatten(model)))


def test_format_1_starts_trainings_and_is_refused_with_the_way_out_elsewhere(exported, tmp_path):
    with safe_open(exported, framework="numpy") as content:
        config = json.loads(content.metadata()["description"])["model"]
    for tower in ("vision", "text"):
        for name in ("activation", "pixel_mean", "pixel_std"):
            config["clip"][tower].pop(name, None)
    config["clip"]["activation"] = "gelu"
    said = {"aima": "1", "config": json.dumps(config), "template": "list"}
    path = rewritten(exported, tmp_path / "old.safetensors", metadata=said)
    with pytest.raises(ValueError, match=r"format 1.*aima convert checkpoint RUN.*convert aima"):
        load_aima(path)
    started = load_weights(path).config.clip
    assert (started.vision.activation, started.text.activation) == ("gelu", "gelu")
    assert started.vision.pixel_mean == (0.48145466, 0.4578275, 0.40821073)


def test_words_of_an_export_are_those_of_its_run(exported, workdir, tmp_path):
    assert exported_words(exported) == {"from_clip": False, "trained": [320, 1237]}
    save_aima(load_model(workdir).model, tmp_path / "alone.safetensors")
    assert exported_words(tmp_path / "alone.safetensors") == {"from_clip": True, "trained": []}
    for other in ("openai/clip-vit-base-patch16", tmp_path, tmp_path / "none.safetensors"):
        assert exported_words(other) is None
