"""The shape of a checkpoint's CLIP: from its arrays, the files beside it, and the user's overrides.

Arrays do not determine the number of heads, the activation, or the pixel normalisation. These are
not guessed: `read_shape` raises an error if heads or activation are not stated.
"""

import collections
import dataclasses
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from aima_jax.convert.layouts import ArrayShape
from aima_jax.convert.sidecars import StatedConfig
from aima_jax.models import CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.models.config import OPENAI_MEAN, OPENAI_STD, Activation, Channels
from aima_jax.text.tokenizer import CONTEXT_LENGTH

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overrides:
    """A user's statements about a checkpoint; None: as stated in the files.

    Attributes:
        vision_heads, text_heads: attention heads.
        activation: of both towers.
        pixel_mean, pixel_std: statistics of red, green and blue, for values in 0…1.
        grid: rows and columns of the position table.
        image_size, patch_stride: of the position table's training, which also give the grid.
    """

    vision_heads: int | None = None
    text_heads: int | None = None
    activation: Activation | None = None
    pixel_mean: Channels | None = None
    pixel_std: Channels | None = None
    grid: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    patch_stride: int | None = None

    def applied(self, config: CLIPConfig) -> CLIPConfig:
        """A config with the overrides for its towers."""
        return config.with_towers(
            activation=self.activation,
            vision_heads=self.vision_heads,
            text_heads=self.text_heads,
            pixel_mean=self.pixel_mean,
            pixel_std=self.pixel_std,
        )


def read_shape(
    found: Mapping[str, ArrayShape], stated: StatedConfig, overrides: Overrides, where: str
) -> CLIPConfig:
    """Read the shape of the model that a checkpoint was saved from.

    Each size is decided by a majority of the arrays, so that a wrong array can be reported.

    Args:
        found: shapes by our names, for arrays in the file.
        stated: from the files beside it; the arrays must agree with them.
        overrides: from the user, with precedence.
        where: the checkpoint, for messages.

    Raises:
        ValueError: the arrays and the files disagree, or heads or activation are not stated.
    """
    stated = _overridden(stated, overrides)
    _check_known(stated, where)
    resnet = any(name.startswith("vision.layer1.") for name in found)
    text_width = _size(found, r"text\.(blocks\.\d+\.\w+|final)_norm\.\w+", 0)
    text = TextConfig(
        width=text_width,
        layers=count(found, "text.blocks"),
        heads=stated.heads("text", text_width),
        mlp_width=_mlp_width(found, "text"),
        context_length=stated.value("text.context_length", CONTEXT_LENGTH),
        activation=stated.value("text.activation"),
    )
    read = _read_resnet if resnet else _read_vit
    vision, image_size = read(found, stated, overrides, where)
    dim = _size(found, r"(text|vision)\.projection\.kernel|vision\.attention_pool\.out\.bias", -1)
    shape = CLIPConfig(image_size=image_size, dim=dim, vision=vision, text=text)
    _check_agreement(shape, stated, where)
    return shape


def count(found: Mapping[str, ArrayShape], blocks: str) -> int:
    """Count the blocks with this name, by their highest number."""
    matches = (re.match(rf"{re.escape(blocks)}\.(\d+)\.", name) for name in found)
    numbers = {int(match[1]) for match in matches if match}
    # One stray number must not ask for a million blocks.
    return min(max(numbers, default=0) + 1, max(2 * len(numbers), 1))


def _overridden(stated: StatedConfig, overrides: Overrides) -> StatedConfig:
    """The stated config, with the user's overrides applied."""
    said = {
        "vision.heads": overrides.vision_heads,
        "text.heads": overrides.text_heads,
        "vision.activation": overrides.activation,
        "text.activation": overrides.activation,
        "vision.pixel_mean": overrides.pixel_mean,
        "vision.pixel_std": overrides.pixel_std,
    }
    values = dict(stated.values)
    if overrides.grid or overrides.image_size:
        values.pop("image_size", None)
    values |= {name: (name, value) for name, value in said.items() if value is not None}
    return dataclasses.replace(stated, values=values)


def _check_known(stated: StatedConfig, where: str) -> None:
    """Raise for unknown values, but only warn for pixel statistics, which most CLIPs share."""
    missing = [
        field
        for field, names in {
            "activation": ("text.activation",),
            "vision_heads": ("vision.heads", "vision.head_width"),
            "text_heads": ("text.heads", "text.head_width"),
        }.items()
        if not any(name in stated for name in names)
    ]
    if missing:
        raise ValueError(
            f"{where} does not state its {' and '.join(missing)}, and is not certainly OpenAI's "
            "own: put the config it came with beside it (open_clip_config.json, or config.json in "
            "Hugging Face's layout), or set them: "
            + ", ".join(f"config.model.{field}" for field in missing)
            + f" in run.py, {', '.join(missing)} of load_clip, or the flags of aima convert. "
            f"The activation is one of {', '.join(get_args(Activation))}; most models have heads "
            "of 64 channels, ViT-H/14 has 80, ViT-g/14 88, ViT-bigG/14 104"
        )
    if "vision.pixel_mean" not in stated or "vision.pixel_std" not in stated:
        _log.warning(
            "%s does not state its pixel normalisation (in preprocessor_config.json or "
            "open_clip_config.json beside it): using the mean and deviation of OpenAI's CLIP; "
            "config.model.pixel_mean and config.model.pixel_std set others",
            where,
        )


def _pixels(stated: StatedConfig) -> dict[str, Any]:
    return {
        "pixel_mean": tuple(stated.value("vision.pixel_mean", OPENAI_MEAN)),
        "pixel_std": tuple(stated.value("vision.pixel_std", OPENAI_STD)),
    }


def _read_vit(
    found: Mapping[str, ArrayShape], stated: StatedConfig, overrides: Overrides, where: str
) -> tuple[ViTConfig, tuple[int, int]]:
    width = _size(found, r"vision\.(blocks\.\d+\.\w+|pre|post)_norm\.\w+", 0)
    stated_patch = stated.value("vision.patch_size", 1)
    patch = _size(found, r"vision\.patch_embedding\.kernel", 0, stated_patch)
    vision = ViTConfig(
        width=width,
        layers=count(found, "vision.blocks"),
        heads=stated.heads("vision", width),
        mlp_width=_mlp_width(found, "vision"),
        patch_size=patch,
        patch_stride=overrides.patch_stride or patch,
        activation=stated.value("vision.activation"),
        **_pixels(stated),
    )
    # The image size need not be a multiple of the patch size.
    image_size = overrides.image_size or stated.value("image_size", None)
    if image_size and not overrides.grid:
        _grid(found, "vision.position_embedding", vision.grid(image_size), where)
        return vision, image_size
    grid = _grid(found, "vision.position_embedding", overrides.grid, where)
    rows, columns = ((n - 1) * vision.patch_stride + patch for n in grid)
    return vision, (rows, columns)


def _read_resnet(
    found: Mapping[str, ArrayShape], stated: StatedConfig, overrides: Overrides, where: str
) -> tuple[ResNetConfig, tuple[int, int]]:
    width = _size(found, r"vision\.layer1\.\d+\.conv1\.(scale|bias|mean|variance)", 0)
    one, two, three, four = (count(found, f"vision.layer{stage}") for stage in (1, 2, 3, 4))
    heads = stated.heads("vision", 32 * width)
    vision = ResNetConfig(width, (one, two, three, four), heads, **_pixels(stated))
    image_size = overrides.image_size or stated.value("image_size", None)
    grid = overrides.grid or (image_size and vision.grid(image_size))
    rows, columns = _grid(found, "vision.attention_pool.position_embedding", grid, where)
    return vision, image_size or (32 * rows, 32 * columns)


def _size(found: Mapping[str, ArrayShape], pattern: str, axis: int, absent: int = 64) -> int:
    """The most common size in arrays with these names; any number if all are missing."""
    sizes = [
        shape[axis]
        for name, shape in found.items()
        if re.fullmatch(pattern, name) and len(shape) > axis
    ]
    return collections.Counter(sizes).most_common(1)[0][0] if sizes else absent


def _mlp_width(found: Mapping[str, ArrayShape], tower: str) -> int:
    sizes = {
        name: (shape[0],) if "down" in name else (shape[-1],)
        for name, shape in found.items()
        if re.fullmatch(rf"{tower}\.blocks\.\d+\.mlp\.(up\.\w+|down\.kernel)", name)
    }
    return _size(sizes, ".*", 0)


def _grid(
    found: Mapping[str, ArrayShape], name: str, grid: tuple[int, int] | None, where: str
) -> tuple[int, int]:
    """Rows and columns of a position table, which has an extra row for the global token."""
    points = _size(found, re.escape(name), 0, absent=2) - 1
    rows, columns = grid or (math.isqrt(points),) * 2
    if name in found and rows * columns != points:
        raise ValueError(
            f"{where}: its position table has {points} points, expected {rows} × {columns}: give "
            "the image size and patch stride that it was trained at, or grid=(rows, columns)"
        )
    return rows, columns


def _check_agreement(shape: CLIPConfig, stated: StatedConfig, where: str) -> None:
    """Check that the files agree with the arrays."""
    wrong = []
    for name, (key, value) in stated.values.items():
        ours: Any = shape
        for part in name.split("."):
            ours = getattr(ours, part, value)  # a head width is not a field, and already used
        if ours != value:
            wrong.append(f"{key} is {value}, expected {ours}")
    if wrong:
        raise ValueError(f"{stated.source} of {where} contradicts its weights: {'; '.join(wrong)}")
