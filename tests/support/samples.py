"""A small model in a workdir, and pictures of noise, to search with."""

import io

import numpy as np
import optax
from flax import nnx
from PIL import Image

from aima_jax.checkpoint import Metadata, pack_categories
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, TextConfig, ViTConfig
from aima_jax.parameters import flatten
from aima_jax.text.tokenizer import encode
from aima_jax.training.saving import Saver
from aima_jax.training.step import TrainState
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema
from tfds_builders.synthetic_pedestrians.wording import WORDING

SIZE = (32, 16)
PIXEL_MEAN, PIXEL_STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)  # not CLIP's
DRESS = (
    "gender={},age=adult,hair={},view=front,sleeve=short,upper_color={},lower_type=pants,"
    "lower_length=long,lower_color=black"
)
PEOPLE = [("male", "short", "red"), ("female", "long", "red"), ("female", "short", "blue")]
CATEGORIES = np.stack(
    [synthetic_schema.encode(synthetic_schema.parse(DRESS.format(*person))) for person in PEOPLE]
)


def make_model(seed=0):
    towers = {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
    clip = CLIPConfig(
        image_size=SIZE,
        dim=64,
        vision=ViTConfig(
            **towers, patch_size=8, patch_stride=8, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD
        ),
        text=TextConfig(**towers),
    )
    return AIMA(AIMAConfig(clip, num_categories=3, fusion_depth=1), rngs=nnx.Rngs(seed))


def metadata(model, **changes):
    """What a checkpoint of the model says of itself; `changes` are fields of its run's config."""
    return Metadata(
        model=model.config.to_dict(),
        schema=synthetic_schema.to_dict(),
        wording=WORDING.to_dict(),
        template="sentence",
        traits={"cameras": False, "query_folder": None, "identities": False},
        categories=pack_categories(CATEGORIES),
        words={"from_clip": False, "trained": encode("woman")},
        config={
            "image_size": SIZE,
            "mesh": {"min_shard_elements": 2**16},
            "posterior_temperature": 0.05,
            "selection": "validation",
            **changes,
        },
    )


def save(workdir, model, description=None, steps=(7,), scores=(None,)):
    """A workdir with a checkpoint of the model after each step, validated where it has a score."""
    saver = Saver(workdir, description or metadata(model))
    for step, score in zip(steps, scores, strict=True):
        state = TrainState.create(flatten(model), optax.sgd(0.1), frozenset(flatten(model)))
        saver.save(step, state, metrics=None if score is None else {"R1": score})
    saver.close()
    return workdir


def picture(seed, size=(60, 30)):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (4, 2, 3), np.uint8)
    return Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
