"""CLIP's weights from every common layout."""

import pathlib

from jax.sharding import Mesh

from aima_jax.convert.files import Checkpoint, open_checkpoint
from aima_jax.convert.mapping import found_shapes
from aima_jax.convert.reading import read_model
from aima_jax.convert.shapes import Overrides, read_shape
from aima_jax.convert.tables import HUGGING_FACE, OPENAI, OPENAI_RESNET, Row
from aima_jax.models import CLIP, CLIPConfig
from aima_jax.models.config import Activation
from aima_jax.models.positions import Resize


def load_clip(
    name_or_path: str | pathlib.Path,
    *,
    image_size: tuple[int, int] | None = (384, 128),
    patch_stride: int | None = None,
    position_resize: Resize = "bilinear",
    mesh: Mesh | None = None,
    trust_weights: bool = False,
    grid: tuple[int, int] | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    activation: Activation | None = None,
) -> tuple[CLIPConfig, CLIP]:
    """Loads a CLIP from Hugging Face's or OpenAI's layout.

    Args:
        name_or_path: see `open_checkpoint`.
        image_size: height and width in pixels; the position grid is resized to it. None: that of
            the checkpoint.
        patch_stride: in pixels; the patch size if None.
        position_resize: "bilinear" or "bicubic".
        mesh: the devices that the parameters are spread over; the default device if None.
        trust_weights: open TorchScript archives, which can run code.
        grid: rows and columns of the checkpoint's position table, a square unless given.
        vision_heads, text_heads: attention heads, where no config.json tells; width / 64 if None.
        activation: where no config.json tells; QuickGELU if None.

    Raises:
        FileNotFoundError: there is no such checkpoint, or no network to fetch it.
        ValueError: it is damaged, is no CLIP, or does not hold exactly the arrays of one.
    """
    checkpoint = open_checkpoint(name_or_path, trust_weights=trust_weights)
    source, table = clip_source(checkpoint, Overrides(vision_heads, text_heads, activation, grid))
    target = source.resized(image_size, patch_stride)
    clip = read_model(checkpoint, table, source, target, position_resize=position_resize, mesh=mesh)
    return target, clip


def clip_source(checkpoint: Checkpoint, overrides: Overrides) -> tuple[CLIPConfig, tuple[Row, ...]]:
    """The shape of the CLIP in a checkpoint, and the table of its names."""
    table = recognise(checkpoint)
    found = found_shapes(checkpoint.shapes, table)
    config = checkpoint.config if table is HUGGING_FACE else None
    return read_shape(found, config, overrides, str(checkpoint.path)), table


def recognise(checkpoint: Checkpoint) -> tuple[Row, ...]:
    """Finds the table for a checkpoint of CLIP by the names of its arrays.

    Raises:
        ValueError: it is something else; the message says what it seems to be.
    """
    keys, path = checkpoint.shapes.keys(), checkpoint.path

    def has(*starts: str) -> bool:
        return any(key.startswith(starts) for key in keys)

    kind = (checkpoint.config or {}).get("model_type", "clip")
    if "aima" in checkpoint.metadata:
        raise ValueError(f"{path} is a whole AIMA model: load it with load_aima")
    if has("base_model."):
        raise ValueError(
            f"{path} is a checkpoint of IRRA: load it with load_irra (aima convert aima)"
        )
    if kind.startswith("siglip") or has("logit_bias", "vision_model.head."):
        raise ValueError(f"{path} is a SigLIP model, whose towers are not CLIP's: expected a CLIP")
    image = has("vision_model.", "visual.")
    text = has("text_model.", "transformer.resblocks.")
    if kind == "clip_vision_model" or (image and not text):
        raise ValueError(f"{path} holds CLIP's image tower alone: expected both towers")
    if kind == "clip_text_model" or (text and not image):
        raise ValueError(f"{path} holds CLIP's text tower alone: expected both towers")
    if not image or kind != "clip":
        raise ValueError(
            f"{path} is no CLIP: expected arrays named as in Hugging Face's or OpenAI's, not a "
            f"{kind!r} model with {', '.join(sorted(keys)[:3]) or 'nothing in it'}"
        )
    if has("vision_model.", "text_model."):
        return HUGGING_FACE
    return OPENAI_RESNET if has("visual.layer") else OPENAI
