"""CONTRIBUTING's recipes for an image tower and an option of the masking, followed by plug-ins.

Those for a loss and for a dataset are followed in training/test_objective.py and
tfds_builders/test_recipe.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from steps import CATEGORIES, NO_AUGMENTATION, SIZE, Setup, descriptions, only

from aima_jax import fields
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, TextConfig, clip
from aima_jax.models import config as models_config
from aima_jax.models.config import ImageTowerConfig
from aima_jax.models.layers import Linear
from aima_jax.sharding import make_mesh
from aima_jax.text import PromptTemplate, build_text_table
from aima_jax.training import masking
from aima_jax.training import objective as training_objective
from aima_jax.training import step as training_step
from aima_jax.training.objective import Objective
from aima_jax.training.setup import initial_parameters
from aima_jax.training.step import CategoryTable
from configs import common
from tfds_builders.synthetic_pedestrians.schema import SCHEMA
from tfds_builders.synthetic_pedestrians.wording import WORDING


@dataclasses.dataclass(frozen=True)
class ColumnsConfig(ImageTowerConfig):
    """A tower whose tokens are the columns of a picture; the mean of them is the global one."""

    width: int

    def grid(self, image_size):
        return 1, image_size[1]


class Columns(nnx.Module):
    def __init__(self, config, *, rngs, platform=None):
        made = {"dtype": config.dtype, "rngs": rngs, "platform": platform}
        self.inward = Linear(3 * config.image_size[0], config.vision.width, std=0.1, **made)
        self.projection = Linear(config.vision.width, config.dim, std=0.1, **made)

    def __call__(self, images, first=None):
        columns = images.swapaxes(1, 2).reshape(len(images), images.shape[2], -1)
        tokens = self.projection(jax.nn.relu(self.inward(columns)))
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        return tokens[:, :first]


def test_an_image_tower_is_a_module_and_its_entries_in_two_tables(monkeypatch):
    text = TextConfig(64, 1, 1, 64)
    preset = CLIPConfig(SIZE, 64, ColumnsConfig(width=8, pixel_mean=(0.5, 0.5, 0.5)), text)
    towers = (*models_config.IMAGE_TOWER_CONFIGS, ColumnsConfig)
    monkeypatch.setattr(models_config, "IMAGE_TOWER_CONFIGS", towers)
    monkeypatch.setitem(models_config.PRESETS, "columns", preset)
    monkeypatch.setitem(clip.IMAGE_TOWERS, ColumnsConfig, Columns)

    config = common.get_config()
    config.weights, config.image_size, config.model.variant = "", SIZE, "columns"
    config.model.pixel_std = (0.2, 0.2, 0.2)
    config.model.fusion_depth = 1
    fields.check_config(config)
    table = np.eye(CATEGORIES, dtype=np.uint8)
    skeleton, params = initial_parameters(config, table, make_mesh(devices=jax.devices()[:1]))
    assert params["clip.vision.inward.kernel"].shape == (3 * SIZE[0], 8)
    vision = skeleton.config.clip.vision
    assert (vision.pixel_mean, vision.pixel_std) == ((0.5,) * 3, (0.2,) * 3)
    assert AIMAConfig.from_dict(skeleton.config.to_dict()) == skeleton.config
    setup = Setup(only(sdm=1.0), model=skeleton.config, augmentation=NO_AUGMENTATION)
    before = setup.params()
    (metrics,) = setup.take()
    assert np.isfinite(metrics["loss"])
    changed = setup.params()["clip.vision.inward.kernel"] - before["clip.vision.inward.kernel"]
    assert np.abs(changed).max() > 0

    images = jax.ShapeDtypeStruct((2, *SIZE, 3), np.float32)
    features, tokens = nnx.eval_shape(AIMA.encode_image, skeleton, images)
    assert features.shape == (2, 64) and tokens.shape == (2, 1 + SIZE[1], 64)
    with pytest.raises(ValueError, match="has no patches"):
        CLIPConfig.preset("columns", patch_stride=4)


def test_an_option_of_the_masking_is_a_keyword_a_default_and_its_values(monkeypatch):
    def mask_phrases(key, tokens, phrase_ids, *, mask_offset, mask_rate, mask_capacity, **_):
        return tokens + mask_offset, phrase_ids, tokens, tokens > 0

    monkeypatch.setattr(training_step, "augment", lambda key, images, **_: images)
    monkeypatch.setattr(training_step, "mask_phrases", mask_phrases)
    options = (*masking.MASKING_OPTIONS, "mask_offset")
    monkeypatch.setattr(training_objective, "MASKING_OPTIONS", options)
    monkeypatch.setitem(fields._FIELDS, "mask_offset", (0, 9))
    config = common.get_config()
    config.mask_offset = 5
    fields.check_config(config)
    template = PromptTemplate(SCHEMA, "sentence", WORDING)
    table = build_text_table(descriptions(np.random.default_rng(0), 4), template)
    batch = {"image": np.zeros((2, *SIZE, 3), np.uint8), "category": np.array([0, 3], np.int32)}
    rows = training_step.draw_rows(
        jax.random.key(0), batch, CategoryTable.of(table), Objective.from_config(config), {}
    )
    np.testing.assert_array_equal(rows["masked_tokens"], table.tokens[[0, 3], 0] + 5)
    config.mask_offset = 10
    with pytest.raises(ValueError, match=r"^config\.mask_offset=10 must be a whole number"):
        fields.check_config(config)
