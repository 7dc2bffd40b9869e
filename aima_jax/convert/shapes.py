"""The shape of a CLIP model, read from its arrays and from Hugging Face's config."""

import collections
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from aima_jax.models import END_OF_TEXT, CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.models.config import Activation

Shape = tuple[int, ...]

VOCABULARY = 49408
CONTEXT_LENGTH = 77


@dataclass(frozen=True)
class Overrides:
    """What the arrays alone cannot tell; None takes the config's word, or CLIP's custom.

    Attributes:
        vision_heads, text_heads: attention heads; width / 64 by custom.
        activation: QuickGELU by custom.
        grid: rows and columns of the position table; a square by custom.
        image_size, patch_stride: what the position table was made for, which tells the grid too.
    """

    vision_heads: int | None = None
    text_heads: int | None = None
    activation: Activation | None = None
    grid: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    patch_stride: int | None = None


def read_shape(
    found: Mapping[str, Shape], config: Mapping[str, Any] | None, overrides: Overrides, where: str
) -> CLIPConfig:
    """Reads the shape of the model that a checkpoint was saved from.

    Each size is what most arrays say, so that the accounting can name the one that is amiss.

    Args:
        found: shapes by our names, as far as the file has them.
        config: Hugging Face's config.json, which the arrays must agree with.
        overrides: from the user.
        where: names the file in messages.

    Raises:
        ValueError: the arrays and the config disagree, or the config asks for what is not CLIP.
    """
    config = config or {}
    vision_config = config.get("vision_config") or {}
    text_config = config.get("text_config") or {}
    text_width = _size(found, r"text\.(blocks\.\d+\.\w+|final)_norm\.\w+", 0)
    text = TextConfig(
        width=text_width,
        layers=count(found, "text.blocks"),
        heads=_heads(text_width, overrides.text_heads, text_config, default=8),
        mlp_width=_mlp_width(found, "text"),
        context_length=text_config.get("max_position_embeddings", CONTEXT_LENGTH),
        activation=_activation(overrides, text_config, "text_config", where),
    )
    dim = _size(found, r"(text|vision)\.projection\.kernel|vision\.attention_pool\.out\.bias", -1)
    if any(name.startswith("vision.layer1.") for name in found):
        vision, image_size = _read_resnet(found, overrides, where)
    else:
        vision, image_size = _read_vit(found, vision_config, overrides, where)
    shape = CLIPConfig(image_size=image_size, dim=dim, vision=vision, text=text)
    if config:
        _check_config(shape, config, where)
    return shape


def _read_vit(
    found: Mapping[str, Shape], config: Mapping[str, Any], overrides: Overrides, where: str
) -> tuple[ViTConfig, tuple[int, int]]:
    width = _size(found, r"vision\.(blocks\.\d+\.\w+|pre|post)_norm\.\w+", 0)
    patch = _size(found, r"vision\.patch_embedding\.kernel", 0, config.get("patch_size", 1))
    vision = ViTConfig(
        width=width,
        layers=count(found, "vision.blocks"),
        heads=_heads(width, overrides.vision_heads, config, default=12),
        mlp_width=_mlp_width(found, "vision"),
        patch_size=patch,
        patch_stride=overrides.patch_stride or patch,
        activation=_activation(overrides, config, "vision_config", where),
    )
    side = config.get("image_size")  # which need not be a multiple of the patches
    image_size = overrides.image_size or (side and (side, side))
    if image_size and not overrides.grid:
        _grid(found, "vision.position_embedding", vision.grid(image_size), where)
        return vision, image_size
    grid = _grid(found, "vision.position_embedding", overrides.grid, where)
    rows, columns = ((n - 1) * vision.patch_stride + patch for n in grid)
    return vision, (rows, columns)


def _read_resnet(
    found: Mapping[str, Shape], overrides: Overrides, where: str
) -> tuple[ResNetConfig, tuple[int, int]]:
    width = _size(found, r"vision\.layer1\.\d+\.conv1\.(scale|bias|mean|variance)", 0)
    layers = tuple(count(found, f"vision.layer{stage}") for stage in (1, 2, 3, 4))
    heads = overrides.vision_heads or 32 * width // 64
    vision = ResNetConfig(width, layers, heads)
    image_size = overrides.image_size
    grid = overrides.grid or (image_size and vision.grid(image_size))
    rows, columns = _grid(found, "vision.attention_pool.position_embedding", grid, where)
    return vision, image_size or (32 * rows, 32 * columns)


def _size(found: Mapping[str, Shape], pattern: str, axis: int, absent: int = 64) -> int:
    """What most arrays of these names say; any number will do where all of them are missing."""
    sizes = [
        shape[axis]
        for name, shape in found.items()
        if re.fullmatch(pattern, name) and len(shape) > axis
    ]
    return collections.Counter(sizes).most_common(1)[0][0] if sizes else absent


def _mlp_width(found: Mapping[str, Shape], tower: str) -> int:
    sizes = {
        name: (shape[0],) if "down" in name else (shape[-1],)
        for name, shape in found.items()
        if re.fullmatch(rf"{tower}\.blocks\.\d+\.mlp\.(up\.\w+|down\.kernel)", name)
    }
    return _size(sizes, ".*", 0)


def count(found: Mapping[str, Shape], blocks: str) -> int:
    """How many blocks there are of this name, by the highest number among them."""
    matches = (re.match(rf"{re.escape(blocks)}\.(\d+)\.", name) for name in found)
    numbers = {int(match[1]) for match in matches if match}
    # One stray number must not ask for a million blocks.
    return min(max(numbers, default=0) + 1, max(2 * len(numbers), 1))


def _heads(width: int, override: int | None, config: Mapping[str, Any], *, default: int) -> int:
    if override:
        return override
    if config:
        return config.get("num_attention_heads", default)
    return max(width // 64, 1)


def _activation(
    overrides: Overrides, config: Mapping[str, Any], tower: str, where: str
) -> Activation:
    name = overrides.activation or config.get("hidden_act", "quick_gelu")
    if name not in get_args(Activation):
        expected = ", ".join(get_args(Activation))
        raise ValueError(
            f"config.json of {where} has a tower that is not CLIP's: {tower}.hidden_act is {name}, "
            f"expected one of {expected}"
        )
    return name


def _grid(
    found: Mapping[str, Shape], name: str, grid: tuple[int, int] | None, where: str
) -> tuple[int, int]:
    """Rows and columns of a position table, which has one row more for the global token."""
    points = _size(found, re.escape(name), 0, absent=2) - 1
    rows, columns = grid or (math.isqrt(points),) * 2
    if name in found and rows * columns != points:
        raise ValueError(
            f"{where}: its position table has {points} points, expected {rows} × {columns}: name "
            "the image size and patch stride that it was trained at, or grid=(rows, columns)"
        )
    return rows, columns


def _check_config(shape: CLIPConfig, config: Mapping[str, Any], where: str) -> None:
    """Compares what config.json says with what the arrays are."""
    towers = {"vision_config": shape.vision, "text_config": shape.text}
    same = {"width": "hidden_size", "layers": "num_hidden_layers", "mlp_width": "intermediate_size"}
    agree = [("projection_dim", config.get("projection_dim", shape.dim), shape.dim)]
    for tower, ours in towers.items():
        theirs = config.get(tower) or {}
        expected = {key: getattr(ours, field) for field, key in same.items()}
        expected |= {"layer_norm_eps": 1e-5}
        if tower == "text_config":
            expected |= {"vocab_size": VOCABULARY}
        else:
            expected |= {"patch_size": ours.patch_size}
        agree += [
            (f"{tower}.{key}", theirs.get(key, value), value) for key, value in expected.items()
        ]
    end = (config.get("text_config") or {}).get("eos_token_id", END_OF_TEXT)
    if end != 2:  # stands for the highest id, which is the end of text
        agree.append(("text_config.eos_token_id", end, END_OF_TEXT))
    wrong = [f"{key} is {given}, expected {value}" for key, given, value in agree if given != value]
    if wrong:
        raise ValueError(f"config.json of {where} does not fit its weights: {'; '.join(wrong)}")
