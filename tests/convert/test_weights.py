"""Weights on disk: round trips, damage and strangers; without PyTorch."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from aima_jax.cli import main
from aima_jax.convert import load_clip, save_aima, save_clip
from aima_jax.convert.export import read_aima
from aima_jax.convert.weights import open_weights
from aima_jax.models import AIMA, CLIP, AIMAConfig, CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.parameters import bind, flatten
from aima_jax.sharding import make_mesh

HAS_TORCH = importlib.util.find_spec("torch") is not None
TOWER = {"width": 64, "layers": 2, "heads": 2, "mlp_width": 160}
CONFIG = CLIPConfig(
    image_size=(32, 32),
    dim=64,
    vision=ViTConfig(**TOWER, patch_size=8, patch_stride=8),
    text=TextConfig(**TOWER),
)
RESNET = dataclasses.replace(CONFIG, vision=ResNetConfig(16, (1, 1, 1, 1), heads=4))


def random_model(make, seed=0):
    """A model of random parameters, without compiling its initialisation."""
    skeleton = nnx.eval_shape(make)
    generator = np.random.default_rng(seed)
    arrays = {
        name: jnp.asarray(generator.standard_normal(x.shape, np.float32))
        for name, x in flatten(skeleton).items()
    }
    return bind(skeleton, arrays)


@pytest.fixture(scope="module")
def clip():
    return random_model(lambda: CLIP(CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(clip, folder)
    return folder


def assert_same(ours, other):
    ours, other = flatten(ours), flatten(other)
    assert ours.keys() == other.keys()
    for name, array in ours.items():
        assert array.dtype == other[name].dtype == jnp.float32
        assert np.array_equal(array, other[name]), name


def test_a_clip_comes_back_from_hugging_face_bit_for_bit(clip, folder):
    config, loaded = load_clip(folder, image_size=None)
    assert config == CONFIG
    assert_same(clip, loaded)


def test_a_single_file_takes_the_config_beside_it(clip, folder):
    config, loaded = load_clip(folder / "model.safetensors", image_size=None)
    assert config == CONFIG
    assert_same(clip, loaded)


def test_without_a_config_what_arrays_cannot_tell_is_asked_for_by_name(
    clip, folder, tmp_path, caplog
):
    path = tmp_path / "alone.safetensors"
    path.write_bytes((folder / "model.safetensors").read_bytes())
    told = {"vision_heads": 4, "text_heads": 2, "activation": "gelu"}
    for missing in ({*told}, {"activation"}, {"vision_heads", "text_heads"}):
        with pytest.raises(ValueError, match=r"alone\.safetensors does not state") as refused:
            load_clip(path, **{name: told[name] for name in told.keys() - missing})
        named = {name for name in told if f"config.model.{name}" in str(refused.value)}
        assert named == missing
    config, loaded = load_clip(path, image_size=None, **told)
    assert (config.vision.heads, config.text.heads) == (4, 2)
    assert (config.vision.activation, config.text.activation) == ("gelu", "gelu")
    assert_same(clip, loaded)
    assert "its pixel normalisation" in caplog.text
    caplog.clear()
    pixels = {"pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.25, 0.5)}
    config, _ = load_clip(path, image_size=None, **told, **pixels)
    assert (config.vision.pixel_mean, config.vision.pixel_std) == tuple(pixels.values())
    assert not caplog.text


def test_an_index_of_several_files_is_one_checkpoint(clip, folder, tmp_path):
    arrays = load_file(folder / "model.safetensors")
    files = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(sorted(arrays))}
    for file in set(files.values()):
        save_file({k: v for k, v in arrays.items() if files[k] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for path in (tmp_path, index):
        assert_same(clip, load_clip(path, image_size=None)[1])

    index.write_text(json.dumps({"weight_map": files | {"more": "part-0.safetensors"}}))
    with pytest.raises(ValueError, match="more in part-0"):
        load_clip(tmp_path)
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="part-1"):
        load_clip(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_widened(dtype, clip, folder, tmp_path):
    arrays = {
        name: array.astype(dtype) for name, array in load_file(folder / "model.safetensors").items()
    }
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    _, loaded = load_clip(tmp_path, image_size=None)
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), flatten(clip))
    assert_same(bind(clip, expected), loaded)


def test_whole_numbers_are_no_weights(folder, tmp_path):
    arrays = load_file(folder / "model.safetensors")
    arrays["text_model.final_layer_norm.bias"] = np.ones(64, np.int8)
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"final_layer_norm.bias has dtype int8"):
        load_clip(tmp_path / "model.safetensors")


def test_numbers_that_are_not_finite_are_no_weights(folder, tmp_path):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-4000:] = b"\xff" * 4000
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"not finite: the file is damaged"):
        load_clip(tmp_path / "model.safetensors")


def test_parameters_land_in_their_shards(clip, folder):
    _, loaded = load_clip(folder, image_size=None, mesh=make_mesh(data=4, fsdp=2))
    assert_same(clip, loaded)
    table = loaded.text.token_embedding.get_value()
    assert {shard.data.shape for shard in table.addressable_shards} == {(49408 // 2, 64)}


MEASURE = """
import pathlib, resource, sys
import jax, numpy, safetensors
from aima_jax.convert import load_clip
from aima_jax.parameters import flatten

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

jax.numpy.zeros(1).block_until_ready()
before = peak()
_, clip = load_clip(sys.argv[1], image_size=None)
model = sum(x.nbytes for x in jax.block_until_ready(list(flatten(clip).values())))
print((peak() - before - model) / (pathlib.Path(sys.argv[1]) / "model.safetensors").stat().st_size)
"""


def test_loading_needs_little_memory_beyond_the_model(tmp_path):
    tower = {"width": 512, "layers": 12, "heads": 8, "mlp_width": 2048}
    vision = ViTConfig(**tower, patch_size=16, patch_stride=16)
    config = dataclasses.replace(CONFIG, image_size=(64, 64), vision=vision)
    save_clip(random_model(lambda: CLIP(config, rngs=nnx.Rngs(0))), tmp_path)
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) <= 1.3


def test_other_image_sizes_keep_the_class_position_and_resize_the_rest(clip, folder):
    config, loaded = load_clip(folder, image_size=(48, 20), patch_stride=4)
    assert config.vision.grid(config.image_size) == (11, 4)
    old, new = (x.vision.position_embedding[...] for x in (clip, loaded))
    assert np.array_equal(old[0], new[0])
    assert new.shape == (1 + 11 * 4, 64)
    assert loaded.config == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RESNET, "ResNet"),
        (CONFIG.resized(image_size=(64, 32)), "64 × 32"),
        (CONFIG.resized(patch_stride=4), "stride of 4"),
    ],
)
def test_what_transformers_cannot_express_is_refused(config, message, tmp_path):
    model = nnx.eval_shape(lambda: CLIP(config, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=message) as error:
        save_clip(model, tmp_path / "out")
    assert "save_aima" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", [CONFIG, RESNET, CONFIG.resized((40, 24), 4, dtype="bfloat16")])
def test_a_whole_aima_comes_back_bit_for_bit(config, tmp_path):
    config = AIMAConfig(config, num_categories=3, fusion_depth=1)
    model = random_model(lambda: AIMA(config, rngs=nnx.Rngs(0)))
    save_aima(model, tmp_path / "a.safetensors")
    for mesh in (None, make_mesh()):
        loaded = read_aima(open_weights(tmp_path / "a.safetensors"), mesh=mesh)
        assert loaded.config == config
        assert_same(model, loaded)
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors"}


def test_the_command_line_writes_the_clip_of_an_aima_file(clip, tmp_path, capsys):
    config = AIMAConfig(CONFIG, num_categories=0, fusion_depth=1)
    model = random_model(lambda: AIMA(config, rngs=nnx.Rngs(0)), seed=1)
    save_aima(model, tmp_path / "new" / "folder" / "aima.safetensors")
    arguments = [str(tmp_path / "new" / "folder" / "aima.safetensors"), str(tmp_path / "clip")]
    assert main(["convert", "huggingface", *arguments, "--temperature", "0.02"]) == 0
    assert "written to" in capsys.readouterr().out
    assert_same(model.clip, load_clip(tmp_path / "clip", image_size=None)[1])
    scale = load_file(tmp_path / "clip" / "model.safetensors")["logit_scale"]
    assert scale == pytest.approx(math.log(50))


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    for arguments, message in (
        (["huggingface", str(tmp_path / "none.pt"), str(tmp_path / "out")], "no weights at"),
        (["aima", str(tmp_path), str(tmp_path / "out.bin")], ".safetensors"),
        (["verify", str(tmp_path)], "config.json" if HAS_TORCH else "pip install torch"),
    ):
        assert main(["convert", *arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    config = AIMAConfig(CONFIG, num_categories=0, fusion_depth=1)
    model = random_model(lambda: AIMA(config, rngs=nnx.Rngs(0)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors could not be written"):
            save_aima(model, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
