"""Checkpoints of IRRA's code, whose model has the parts of AIMA under other names."""

import pathlib

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from aima_jax.convert.clip import describe, resizing, shapes_of
from aima_jax.convert.files import open_checkpoint
from aima_jax.convert.mapping import (
    check_complete,
    entries_of,
    found_shapes,
    place,
    read_parameters,
)
from aima_jax.convert.shapes import Overrides, count, read_shape
from aima_jax.convert.tables import OPENAI, OPENAI_RESNET, irra
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.models.config import Activation
from aima_jax.models.positions import Resize
from aima_jax.parameters import Parameters, bind, flatten


def load_irra(
    path: str | pathlib.Path,
    *,
    num_categories: int | None = None,
    image_size: tuple[int, int] = (384, 128),
    patch_stride: int | None = None,
    position_resize: Resize = "bilinear",
    mesh: Mesh | None = None,
    trust_weights: bool = False,
    grid: tuple[int, int] | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    activation: Activation | None = None,
    seed: int = 0,
) -> tuple[AIMAConfig, AIMA]:
    """Loads a checkpoint of IRRA's code as an AIMA model, fusion module and MAP head included.

    Args:
        path: a file that IRRA's `Checkpointer` saved, or its state dict.
        num_categories: of the model; that of the checkpoint if None. The checkpoint's classifier is
            loaded where the number fits, else a new one is drawn.
        grid: rows and columns of the checkpoint's position table; those of `image_size` and
            `patch_stride` unless given, since a person's crop is no square.
        seed: of a new classifier.

    The other arguments are those of `load_clip`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or does not hold exactly the arrays of an IRRA model.
    """
    checkpoint = open_checkpoint(path, trust_weights=trust_weights)
    keys = checkpoint.shapes.keys()
    if not any(key.startswith("base_model.") for key in keys):
        raise ValueError(f"{path} is no checkpoint of IRRA: none of its arrays is in base_model")
    resnet = any(key.startswith("base_model.visual.layer") for key in keys)
    table = irra(OPENAI_RESNET if resnet else OPENAI)
    found = found_shapes(checkpoint.shapes, table)
    clip = {
        name.removeprefix("clip."): shape
        for name, shape in found.items()
        if name.startswith("clip.")
    }
    overrides = Overrides(
        vision_heads, text_heads, activation, grid, None if grid else image_size, patch_stride
    )
    source = read_shape(clip, None, overrides, str(checkpoint.path))
    held = found.get("classifier.bias", found.get("classifier.kernel", (0,)))[-1]
    depth = count(found, "fusion.blocks")
    skeleton = _abstract(AIMAConfig(source, num_categories=held, fusion_depth=depth))
    expected = shapes_of(skeleton)
    entries = entries_of(expected, table)
    what = f"{describe(source)} with IRRA's fusion module of {depth} blocks"
    check_complete(checkpoint, entries, expected, what=what)

    wanted = held if num_categories is None else num_categories
    target = AIMAConfig(source.resized(image_size, patch_stride), wanted, depth)
    if wanted != held:
        entries = [entry for entry in entries if not entry.ours[0].startswith("classifier.")]
    change = resizing(source, target.clip, position_resize)
    params = read_parameters(checkpoint, entries, mesh=mesh, change=change)
    if wanted not in (0, held):
        params |= _new_classifier(target, seed, mesh)
    return target, bind(_abstract(target), params)


def _abstract(config: AIMAConfig) -> AIMA:
    return nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0)))


def _new_classifier(config: AIMAConfig, seed: int, mesh: Mesh | None) -> Parameters:
    """Draws the identity classifier that a new model of this seed would have."""

    @jax.jit  # so that nothing else of the model is computed
    def draw() -> Parameters:
        params = flatten(AIMA(config, rngs=nnx.Rngs(seed)))
        return {name: x for name, x in params.items() if name.startswith("classifier.")}

    return {name: place(np.asarray(x), mesh) for name, x in draw().items()}
