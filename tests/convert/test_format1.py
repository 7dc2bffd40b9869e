"""Checkpoints of format 1 are refused with the command that converts them, and it does."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from aima_jax import checkpoint
from aima_jax.cli import main
from aima_jax.convert.format1 import convert_checkpoints
from aima_jax.data import categories, hold_out_categories, open_dataset
from aima_jax.files import checksums, read_sealed_json, write_sealed_json
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig
from aima_jax.parameters import flatten, model_id
from aima_jax.workdir import as_json
from configs import synthetic
from tfds_builders.prepare import prepare

DATASET = "synthetic_pedestrians/train64-val16-test32-seed0"
HELD_OUT = 5


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(DATASET, data_dir=folder)
    return folder


@pytest.fixture(scope="module")
def train(data_dir):
    split = open_dataset(prepare(DATASET, data_dir=data_dir)).split("train")
    return hold_out_categories(split, HELD_OUT, seed=0)[0]


def make_format_1(folder, train, data_dir, *, step=7, **changes):
    """A checkpoint as the first version wrote it; returns its model."""
    from orbax.checkpoint import v1 as ocp

    table, _ = categories(train.attributes)
    config = synthetic.get_config()
    config.update({"dataset": DATASET, "data_dir": str(data_dir)} | changes)
    config.validation_categories = HELD_OUT
    shape = AIMAConfig(CLIPConfig.preset("tiny"), len(table), fusion_depth=1)
    model = AIMA(shape, rngs=nnx.Rngs(1))
    described = shape.to_dict()
    for tower in ("vision", "text"):
        for name in ("activation", "pixel_mean", "pixel_std"):
            described["clip"][tower].pop(name, None)
    described["clip"]["activation"] = "gelu"  # of both towers; pixels were always CLIP's
    metadata = {
        "model": described,
        "schema": train.schema.to_dict(),
        "template": "sentence",
        "config": as_json(config),
        "dataset": {"name": DATASET, "checksum": train.checksum, "categories": len(table)},
    }
    path = folder / "checkpoints" / str(step)
    with ocp.training.Checkpointer(path.parent) as checkpointer:
        checkpointer.save_checkpointables(
            step, {"params": flatten(model), "train": {"step": 7}}, custom_metadata=metadata
        )
    files = checksums(path, leave_out=checkpoint.MANIFEST)
    content = {"step": step, "metrics": {"R1": 0.25}, "files": files}
    write_sealed_json(path / checkpoint.MANIFEST, content)
    return model


def test_format_1_is_refused_with_the_command_that_converts_it(tmp_path, train, data_dir, capsys):
    model = make_format_1(tmp_path, train, data_dir)
    path = tmp_path / "checkpoints" / "7"
    with pytest.raises(ValueError, match=f"format 1.*: aima convert checkpoint {path}"):
        checkpoint.load_model(tmp_path)
    [told] = convert_checkpoints(tmp_path)
    assert told == f"{path}: converted to format 2"

    restored = checkpoint.load_model(tmp_path)
    params = {name: np.asarray(value) for name, value in flatten(model).items()}
    found = flatten(restored.model)
    assert found.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    vision = model.config.clip.vision
    assert restored.model_id == model_id(params, vision.pixel_mean, vision.pixel_std)
    towers = model.config.clip.with_towers(activation="gelu")
    assert restored.model.config == dataclasses.replace(model.config, clip=towers)
    assert restored.schema == train.schema
    assert restored.wording == train.wording
    assert restored.traits == train.traits
    np.testing.assert_array_equal(restored.categories, np.unique(train.attributes, axis=0))
    assert not restored.words["from_clip"] and len(restored.words["trained"]) > 10
    assert checkpoint.score(path) == 0.25
    assert main(["convert", "checkpoint", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: already has format 2\n"


def test_another_dataset_is_refused(tmp_path, train, data_dir):
    other = dataclasses.replace(train, checksum="0" * 64)
    make_format_1(tmp_path, other, data_dir)
    before = (tmp_path / "checkpoints" / "7" / "MANIFEST.json").read_bytes()
    with pytest.raises(ValueError, match=r"was trained on .*'checksum': '0000.*prepare the former"):
        convert_checkpoints(tmp_path)
    assert (tmp_path / "checkpoints" / "7" / "MANIFEST.json").read_bytes() == before


def test_a_damaged_checkpoint_is_left_as_it_is_and_the_next_converted(tmp_path, train, data_dir):
    for step in (7, 9):
        make_format_1(tmp_path, train, data_dir, step=step)
    (tmp_path / "checkpoints" / "7" / "_CHECKPOINT_METADATA").unlink()
    damaged, sound = convert_checkpoints(tmp_path)
    assert "damaged, left unchanged" in damaged and sound.endswith("converted to format 2")
    assert "format" not in read_sealed_json(tmp_path / "checkpoints" / "7" / "MANIFEST.json")


def test_words_of_a_run_that_is_gone_are_not_taken_for_a_clips(tmp_path, train, data_dir):
    make_format_1(tmp_path, train, data_dir, init_from="/gone")
    [told] = convert_checkpoints(tmp_path)
    assert "is not known" in told and "/gone" in told
    assert not checkpoint.load_model(tmp_path).words["from_clip"]


def test_a_newer_format_is_refused(tmp_path):
    write_sealed_json(tmp_path / "MANIFEST.json", {"format": 3, "step": 1, "files": {}})
    with pytest.raises(ValueError, match=r"format 3.* use a newer version"):
        checkpoint.load_model(tmp_path)


def test_there_is_something_to_convert(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        convert_checkpoints(tmp_path)
