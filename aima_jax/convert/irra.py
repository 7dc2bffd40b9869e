"""Checkpoints of IRRA's code, whose model has the parts of AIMA under other names."""

import pathlib

from jax.sharding import Mesh

from aima_jax.convert.files import Checkpoint, open_checkpoint
from aima_jax.convert.mapping import found_shapes
from aima_jax.convert.reading import adapt, read_model
from aima_jax.convert.shapes import Overrides, count, read_shape
from aima_jax.convert.tables import OPENAI, OPENAI_RESNET, Row, irra
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.models.config import Activation
from aima_jax.models.positions import Resize


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
    size = None if grid else image_size
    source, table = irra_source(
        checkpoint, Overrides(vision_heads, text_heads, activation, grid, size, patch_stride)
    )
    target = adapt(source, image_size, patch_stride, num_categories)
    model = read_model(
        checkpoint, table, source, target, position_resize=position_resize, mesh=mesh, seed=seed
    )
    return target, model


def is_irra(checkpoint: Checkpoint) -> bool:
    """Whether IRRA's code saved it."""
    return any(key.startswith("base_model.") for key in checkpoint.shapes)


def irra_source(checkpoint: Checkpoint, overrides: Overrides) -> tuple[AIMAConfig, tuple[Row, ...]]:
    """The shape of the model in a checkpoint of IRRA, and the table of its names.

    Raises:
        ValueError: it is something else.
    """
    if not is_irra(checkpoint):
        raise ValueError(
            f"{checkpoint.path} is no checkpoint of IRRA: none of its arrays is in base_model"
        )
    resnet = any(key.startswith("base_model.visual.layer") for key in checkpoint.shapes)
    table = irra(OPENAI_RESNET if resnet else OPENAI)
    found = found_shapes(checkpoint.shapes, table)
    inner = {
        name.removeprefix("clip."): shape
        for name, shape in found.items()
        if name.startswith("clip.")
    }
    clip = read_shape(inner, None, overrides, str(checkpoint.path))
    categories = found.get("classifier.bias", found.get("classifier.kernel", (0,)))[-1]
    return AIMAConfig(clip, categories, fusion_depth=count(found, "fusion.blocks")), table
