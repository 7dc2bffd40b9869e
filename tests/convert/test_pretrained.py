"""A run's start from weights of every kind; files by their names alone, without PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from aima_jax.convert import load_clip, save_aima, save_clip
from aima_jax.convert.export import read_aima
from aima_jax.convert.layouts import OPENAI, OPENAI_RESNET, entries_of, irra
from aima_jax.convert.weights import open_weights
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.models import resize_positions as resize
from aima_jax.parameters import bind, flatten
from aima_jax.sharding import make_mesh
from aima_jax.training.setup import initial_parameters
from configs import synthetic

TOWER = {"width": 64, "layers": 1, "heads": 1, "mlp_width": 128}
CONFIG = AIMAConfig(
    CLIPConfig(
        image_size=(32, 32),
        dim=64,
        vision=ViTConfig(**TOWER, patch_size=8, patch_stride=8),
        text=TextConfig(**TOWER),
    ),
    num_categories=3,
    fusion_depth=2,
)
RESNET = dataclasses.replace(
    CONFIG,
    clip=dataclasses.replace(
        CONFIG.clip, image_size=(64, 64), vision=ResNetConfig(16, (1, 1, 1, 1), heads=8)
    ),
)
POSITIONS = "clip.vision.position_embedding"


def random_aima(config):
    skeleton = nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0)))
    generator = np.random.default_rng(0)
    arrays = {
        name: jnp.asarray(generator.standard_normal(x.shape, np.float32))
        for name, x in flatten(skeleton).items()
    }
    return bind(skeleton, arrays)


def save_as(model, table, path):
    """Write a model with the names of another layout."""
    params = flatten(model)
    arrays = {
        entry.theirs: np.ascontiguousarray(entry.join([np.asarray(params[n]) for n in entry.ours]))
        for entry in entries_of(params, table)
    }
    save_file(arrays, path)
    return path


def start(weights, image_size, categories=3, model=None, **fields):
    config = synthetic.get_config()
    config.model.update(model or {})
    config.update({"weights": str(weights), "image_size": image_size, "seed": 5} | fields)
    table = np.zeros((categories, 1), np.uint8)
    skeleton, params = initial_parameters(config, table, make_mesh(data=4, fsdp=2))
    expected = {name: x.shape for name, x in flatten(skeleton).items()}
    assert {name: x.shape for name, x in params.items()} == expected
    return skeleton, {name: np.asarray(x) for name, x in params.items()}


def save_hugging_face(model, folder):
    save_clip(model.clip, folder)
    return folder


def save_resnet(model, folder):
    return save_as(model.clip, OPENAI_RESNET, folder / "resnet.safetensors")


@pytest.mark.parametrize(
    ("config", "save"), [(CONFIG, save_hugging_face), (RESNET, save_resnet)], ids=["ViT", "ResNet"]
)
def test_a_run_starts_from_a_clip_and_draws_the_rest(config, save, tmp_path):
    model = random_aima(config)
    weights = save(model, tmp_path)
    told = {"activation": "quick_gelu", "vision_heads": 8, "text_heads": 1}
    skeleton, params = start(
        weights, config.clip.image_size, model=told if save is save_resnet else {}
    )
    assert skeleton.config.clip == config.clip
    assert skeleton.config.fusion_depth == synthetic.get_config().model.fusion_depth
    for name, x in flatten(model.clip).items():
        assert np.array_equal(params[f"clip.{name}"], x), name
    drawn = [name for name in params if name.endswith("kernel") and "clip." not in name]
    assert len(drawn) > 5
    assert all(0 < params[name].std() < 0.5 for name in drawn)


def test_pixel_statistics_come_with_the_weights_and_go_out_with_them(tmp_path):
    """From a folder of Hugging Face's through a run's start into both kinds of export."""
    halves = {"pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.25, 0.5)}
    vision = dataclasses.replace(CONFIG.clip.vision, **halves)
    config = dataclasses.replace(CONFIG, clip=dataclasses.replace(CONFIG.clip, vision=vision))
    model = random_aima(config)
    for save in (save_hugging_face, save_whole):
        skeleton, params = start(save(model, tmp_path / save.__name__), (32, 32))
        assert skeleton.config.clip.vision == vision
        started = bind(skeleton, params)
        save_clip(started.clip, tmp_path / "clip")
        assert load_clip(tmp_path / "clip", image_size=None)[0].vision == vision
        save_aima(started, tmp_path / "aima.safetensors")
        assert read_aima(open_weights(tmp_path / "aima.safetensors")).config.clip.vision == vision
        said = {"pixel_mean": (0.1, 0.2, 0.3), "pixel_std": (1.0, 2.0, 3.0)}
        skeleton, _ = start(tmp_path / "aima.safetensors", (32, 32), model=said)
        other = skeleton.config.clip.vision
        assert (other.pixel_mean, other.pixel_std) == tuple(said.values())


def save_irra(model, folder):
    return save_as(model, irra(OPENAI), folder / "irra.safetensors")


def save_whole(model, folder):
    save_aima(model, folder / "aima.safetensors")
    return folder / "aima.safetensors"


@pytest.mark.parametrize("save", [save_irra, save_whole], ids=["IRRA", "AIMA"])
def test_a_run_starts_from_a_whole_model(save, tmp_path):
    model = random_aima(CONFIG)
    weights = save(model, tmp_path)
    skeleton, params = start(weights, (32, 32))
    assert skeleton.config == CONFIG
    for name, x in flatten(model).items():
        assert np.array_equal(params[name], x), name

    _, other = start(weights, (32, 32), categories=9)
    assert other.pop("classifier.kernel").shape == (64, 9)
    assert other.pop("classifier.bias").shape == (9,)
    assert all(np.array_equal(params[name], x) for name, x in other.items())


def test_a_whole_model_moves_to_another_image_size(tmp_path):
    model = random_aima(CONFIG)
    skeleton, params = start(save_whole(model, tmp_path), (48, 24))
    assert skeleton.config.clip.image_size == (48, 24)
    table = flatten(model)[POSITIONS]
    assert np.array_equal(params[POSITIONS], resize(table, (4, 4), (6, 3)))
    with pytest.raises(ValueError, match="16 points, expected 6 × 3"):
        start(save_irra(model, tmp_path), (48, 24))


def test_a_new_classifier_is_that_of_the_seed(tmp_path):
    weights = save_whole(random_aima(CONFIG), tmp_path)
    _, params = start(weights, (32, 32), categories=9)
    config = dataclasses.replace(CONFIG, num_categories=9)
    fresh = jax.jit(lambda: flatten(AIMA(config, rngs=nnx.Rngs(5)))["classifier.kernel"])()
    np.testing.assert_allclose(params["classifier.kernel"], fresh, rtol=1e-6)
