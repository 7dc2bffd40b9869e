"""Models from files of weights: CLIP in every common layout, checkpoints of IRRA, our own."""

import contextlib
import dataclasses
import pathlib

from jax.sharding import Mesh

from aima_jax.convert.export import aima_source, check_identity, is_aima
from aima_jax.convert.layouts import (
    HUGGING_FACE,
    OPENAI,
    OPENAI_RESNET,
    Row,
    custom_text,
    found_shapes,
    irra,
)
from aima_jax.convert.reading import adapt, read_model
from aima_jax.convert.shapes import Overrides, count, read_shape
from aima_jax.convert.sidecars import (
    HUGGING_FACE_FILE,
    OPENAI_CUSTOM,
    read_hugging_face,
    read_open_clip,
)
from aima_jax.convert.weights import Weights, open_weights
from aima_jax.models import AIMA, CLIP, PRESETS, AIMAConfig, CLIPConfig
from aima_jax.models.config import Activation, Channels
from aima_jax.models.layers import Resize

_OPENAI_SIZES = {"input_resolution", "context_length", "vocab_size"}

# Name prefixes that only other kinds of models have.
_OTHER_KINDS = {
    ("logit_bias", "vision_model.head."): "a SigLIP",
    ("text_decoder.", "multimodal_decoder.", "mammut."): "a CoCa, which has a decoder",
    ("visual.attn_pool",): "a model whose image tower pools by attention, like CoCa's",
    ("cls_emb", "text.cls_emb"): "a model whose text tower has a class token, like CoCa's",
    ("visual.trunk.",): "a model with an image tower from timm",
    ("text.transformer.embeddings.", "text.transformer.encoder."): "a model with a text tower from "
    "transformers",
}


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
    pixel_mean: Channels | None = None,
    pixel_std: Channels | None = None,
) -> tuple[CLIPConfig, CLIP]:
    """Load a CLIP from the layout of Hugging Face, OpenAI or open_clip.

    Activation, heads and pixel statistics are read from the files beside the weights (config.json
    and preprocessor_config.json, or open_clip_config.json) unless given here.

    Args:
        name_or_path: see `open_weights`.
        image_size: height and width in pixels; the position grid is resized to it. None: the
            checkpoint's.
        patch_stride: in pixels; the patch size if None.
        position_resize: "bilinear" or "bicubic".
        mesh: the devices that the parameters are spread over; the default device if None.
        trust_weights: open TorchScript archives, which can run code.
        grid: rows and columns of the checkpoint's position table, a square unless given.
        vision_heads, text_heads: attention heads.
        activation: of both towers, "quick_gelu" or "gelu".
        pixel_mean, pixel_std: of red, green and blue, for values in 0…1.

    Raises:
        FileNotFoundError: there is no such checkpoint, or no network to fetch it.
        ValueError: it is damaged, is not a CLIP, does not contain exactly the arrays of one, or its
            activation or heads are not known.
    """
    weights = open_weights(name_or_path, trust_weights=trust_weights)
    overrides = Overrides(vision_heads, text_heads, activation, pixel_mean, pixel_std, grid)
    source, table = clip_source(weights, overrides)
    target = source.resized(image_size, patch_stride)
    clip = read_model(weights, table, source, target, position_resize=position_resize, mesh=mesh)
    assert isinstance(clip, CLIP)
    return target, clip


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
    """Load a checkpoint of IRRA's code as an AIMA model, fusion module and MAP head included.

    IRRA starts from OpenAI's own weights, from which its code derives activation and heads.

    Args:
        path: a file that IRRA's `Checkpointer` saved, or its state dict.
        num_categories: of the model; the checkpoint's if None. The checkpoint's classifier is
            loaded if the number matches, else a new one is initialised.
        grid: rows and columns of the checkpoint's position table; by default from `image_size` and
            `patch_stride`, since a person's crop is not square.
        seed: of a new classifier.

    The other arguments are as in `load_clip`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or does not contain exactly the arrays of an IRRA model.
    """
    weights = open_weights(path, trust_weights=trust_weights)
    overrides = Overrides(
        vision_heads,
        text_heads,
        activation,
        grid=grid,
        image_size=None if grid else image_size,
        patch_stride=patch_stride,
    )
    source, table = irra_source(weights, overrides)
    target = adapt(source, image_size, patch_stride, num_categories)
    model = read_model(
        weights, table, source, target, position_resize=position_resize, mesh=mesh, seed=seed
    )
    assert isinstance(target, AIMAConfig) and isinstance(model, AIMA)
    return target, model


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
    pixel_mean: Channels | None = None,
    pixel_std: Channels | None = None,
    seed: int = 0,
) -> CLIP | AIMA:
    """Load a CLIP, an IRRA checkpoint or an AIMA file for a model with that many categories.

    A classifier is loaded if the number of categories matches, else a new one is initialised.
    Arguments and exceptions are as in `load_clip` and `load_irra`.
    """
    weights = open_weights(name_or_path, trust_weights=trust_weights)
    overrides = Overrides(vision_heads, text_heads, activation, pixel_mean, pixel_std)
    if is_aima(weights):
        whole, table = aima_source(weights), None
        source = dataclasses.replace(whole, clip=overrides.applied(whole.clip))
    elif is_irra(weights):
        overrides = dataclasses.replace(overrides, image_size=image_size, patch_stride=patch_stride)
        source, table = irra_source(weights, overrides)
    else:
        source, table = clip_source(weights, overrides)
    model = read_model(
        weights,
        table,
        source,
        adapt(source, image_size, patch_stride, num_categories),
        position_resize=position_resize,
        mesh=mesh,
        seed=seed,
    )
    if table is None:
        check_identity(weights)
    return model


def clip_source(weights: Weights, overrides: Overrides) -> tuple[CLIPConfig, tuple[Row, ...]]:
    """The shape of the CLIP in a checkpoint, and the table of its names.

    Raises:
        ValueError: it is not a CLIP, or its activation or heads are not known.
    """
    table = recognise(weights)
    found = found_shapes(weights.shapes, table)
    where = str(weights.path)
    if table is HUGGING_FACE:
        stated = read_hugging_face(weights.sidecars, where)
    elif _is_openai(weights, table):
        stated = OPENAI_CUSTOM
    else:
        stated = read_open_clip(weights.sidecars, where)
    return read_shape(found, stated, overrides, where), table


def irra_source(weights: Weights, overrides: Overrides) -> tuple[AIMAConfig, tuple[Row, ...]]:
    """The shape of the model in a checkpoint of IRRA, and the table of its names.

    Raises:
        ValueError: it is not a checkpoint of IRRA.
    """
    if not is_irra(weights):
        raise ValueError(
            f"{weights.path} is not a checkpoint of IRRA: no array has the prefix base_model"
        )
    resnet = any(key.startswith("base_model.visual.layer") for key in weights.shapes)
    table = irra(OPENAI_RESNET if resnet else OPENAI)
    found = found_shapes(weights.shapes, table)
    inner = {
        name.removeprefix("clip."): shape
        for name, shape in found.items()
        if name.startswith("clip.")
    }
    clip = read_shape(inner, OPENAI_CUSTOM, overrides, str(weights.path))
    categories = found.get("classifier.bias", found.get("classifier.kernel", (0,)))[-1]
    return AIMAConfig(clip, categories, fusion_depth=count(found, "fusion.blocks")), table


def is_irra(weights: Weights) -> bool:
    """Whether the weights were saved by IRRA's code."""
    return any(key.startswith("base_model.") for key in weights.shapes)


def recognise(weights: Weights) -> tuple[Row, ...]:
    """Find the table for a checkpoint of CLIP by the names of its arrays.

    Raises:
        ValueError: it is not a CLIP; the message says what it seems to be.
    """
    keys, path = weights.shapes.keys(), weights.path

    def has(*starts: str) -> bool:
        return any(key.startswith(starts) for key in keys)

    if "aima" in weights.metadata:
        raise ValueError(f"{path} is a whole AIMA model: load it with load_aima")
    if has("base_model."):
        raise ValueError(
            f"{path} is a checkpoint of IRRA: load it with load_irra (aima convert aima)"
        )
    for starts, name in _OTHER_KINDS.items():
        if has(*starts):
            raise ValueError(f"{path} is {name}: expected a CLIP with OpenAI's two towers")
    if has("visual.") and has("transformer.resblocks.", "text.transformer.resblocks."):
        table = OPENAI_RESNET if has("visual.layer") else OPENAI
        return custom_text(table) if has("text.transformer.") else table

    kind = (weights.sidecars.get(HUGGING_FACE_FILE) or {}).get("model_type", "clip")
    image = has("vision_model.", "visual.")
    text = has("text_model.", "transformer.resblocks.", "text.transformer.resblocks.")
    if str(kind).startswith("siglip"):
        raise ValueError(f"{path} is a SigLIP: expected a CLIP with OpenAI's two towers")
    if kind == "clip_vision_model" or (image and not text):
        raise ValueError(f"{path} has only CLIP's image tower: expected both towers")
    if kind == "clip_text_model" or (text and not image):
        raise ValueError(f"{path} has only CLIP's text tower: expected both towers")
    if not image or kind != "clip":
        raise ValueError(
            f"{path} is not a CLIP: expected arrays named as in Hugging Face's, OpenAI's or "
            f"open_clip's, not a {kind!r} model with "
            f"{', '.join(sorted(keys)[:3]) or 'no arrays'}"
        )
    return HUGGING_FACE


def _is_openai(weights: Weights, table: tuple[Row, ...]) -> bool:
    """Whether this certainly is one of OpenAI's own files.

    Only its archives store sizes beside the weights, and it published only the shapes of the
    presets. The weights alone cannot be distinguished from a retrained model's.
    """
    if not weights.shapes.keys() >= _OPENAI_SIZES:
        return False
    found = found_shapes(weights.shapes, table)
    with contextlib.suppress(ValueError):
        shape = read_shape(found, OPENAI_CUSTOM, Overrides(), str(weights.path))
        return any(shape == preset for name, preset in PRESETS.items() if name != "tiny")
    return False
