"""Where a training starts: a CLIP, or a whole model."""

import dataclasses
import pathlib

from jax.sharding import Mesh

from aima_jax.convert.aima import aima_source, is_aima
from aima_jax.convert.clip import clip_source
from aima_jax.convert.files import open_checkpoint
from aima_jax.convert.irra import irra_source, is_irra
from aima_jax.convert.reading import adapt, read_model
from aima_jax.convert.shapes import Overrides
from aima_jax.models import AIMA, CLIP
from aima_jax.models.config import Activation
from aima_jax.models.positions import Resize


def load_pretrained(
    name_or_path: str | pathlib.Path,
    *,
    num_categories: int,
    image_size: tuple[int, int],
    patch_stride: int | None = None,
    position_resize: Resize = "bilinear",
    mesh: Mesh | None = None,
    trust_weights: bool = False,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    activation: Activation | None = None,
    seed: int = 0,
) -> CLIP | AIMA:
    """Loads what `load_clip`, `load_irra` or `load_aima` would, for a model of these categories.

    A classifier is loaded where the number of categories fits, else a new one is drawn. The
    arguments, and what is raised, are those of `load_clip` and `load_irra`.
    """
    checkpoint = open_checkpoint(name_or_path, trust_weights=trust_weights)
    if is_aima(checkpoint):
        whole, table = aima_source(checkpoint), None
        towers = whole.clip.with_towers(
            activation=activation, vision_heads=vision_heads, text_heads=text_heads
        )
        source = dataclasses.replace(whole, clip=towers)
    elif is_irra(checkpoint):
        overrides = Overrides(vision_heads, text_heads, activation, None, image_size, patch_stride)
        source, table = irra_source(checkpoint, overrides)
    else:
        source, table = clip_source(checkpoint, Overrides(vision_heads, text_heads, activation))
    return read_model(
        checkpoint,
        table,
        source,
        adapt(source, image_size, patch_stride, num_categories),
        position_resize=position_resize,
        mesh=mesh,
        seed=seed,
    )
