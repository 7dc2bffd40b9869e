"""Shapes of models, given by hand, by name or as JSON; no arrays are created here."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from aima_jax.text.tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE

Activation = Literal["quick_gelu", "gelu"]
Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]
Channels = tuple[int | float, int | float, int | float]  # red, green, blue

# Of each colour channel, for values in 0…1 (OpenAI CLIP).
OPENAI_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Channels = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a stack of transformer blocks, and the activation of their MLPs."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation = field(default="quick_gelu", kw_only=True)

    def __post_init__(self):
        _check_choice(self, "activation", Activation)
        if self.width % self.heads:
            raise ValueError(
                f"{type(self).__name__}: width {self.width} is not a multiple of heads {self.heads}"
            )

    def initial_scales(self) -> tuple[float, float, float]:
        """Standard deviations of projections in, projections out, and the MLP's first layer.

        As in OpenAI's `initialize_parameters`, which IRRA's fusion module follows.
        """
        inward = self.width**-0.5
        return inward, inward * (2 * self.layers) ** -0.5, (2 * self.width) ** -0.5


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig:
    """The input normalisation of an image tower.

    Attributes:
        pixel_mean: of each colour channel, for values in 0…1; subtracted.
        pixel_std: standard deviation of the same; the divisor.
    """

    pixel_mean: Channels = OPENAI_MEAN
    pixel_std: Channels = OPENAI_STD

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the tokens of an image, without the global one."""
        raise NotImplementedError

    def check_pixels(self) -> None:
        """Check the pixel statistics.

        Raises:
            ValueError: they are not three numbers each, or a deviation is not positive.
        """
        for name, least in (("pixel_mean", -math.inf), ("pixel_std", 0.0)):
            value = getattr(self, name)
            if len(value) != 3 or not all(math.isfinite(x) and x > least for x in value):
                raise ValueError(
                    f"{type(self).__name__}.{name}: {value} is not three numbers"
                    + (" over 0" if least == 0 else "")
                )


@dataclass(frozen=True)
class ViTConfig(TransformerConfig, ImageTowerConfig):
    """Shape of a vision transformer; sizes in pixels."""

    patch_size: int
    patch_stride: int

    def __post_init__(self):
        super().__post_init__()
        self.check_pixels()
        if self.patch_stride < 1:
            raise ValueError(f"patch_stride={self.patch_stride}: expected 1 pixel or more")

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches in an image, as in a convolution without padding."""
        rows, columns = ((side - self.patch_size) // self.patch_stride + 1 for side in image_size)
        return rows, columns


@dataclass(frozen=True)
class ResNetConfig(ImageTowerConfig):
    """Shape of a ModifiedResNet.

    Attributes:
        width: channels after the stem.
        layers: bottlenecks of each of the four stages.
        heads: of the attention pooling.
    """

    width: int
    layers: tuple[int, int, int, int]
    heads: int

    def __post_init__(self):
        self.check_pixels()

    @property
    def channels(self) -> int:
        """Channels of the feature map."""
        return 32 * self.width

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the feature map of an image."""
        # The first convolution rounds up, the following four poolings round down.
        rows, columns = ((side + 1) // 2 // 16 for side in image_size)
        return rows, columns


IMAGE_TOWER_CONFIGS = (ViTConfig, ResNetConfig)  # their modules: `clip.IMAGE_TOWERS`


@dataclass(frozen=True)
class TextConfig(TransformerConfig):
    """Shape of the text transformer."""

    context_length: int = CONTEXT_LENGTH
    vocabulary: int = VOCABULARY_SIZE


@dataclass(frozen=True)
class CLIPConfig:
    """Shape of a CLIP model and its mode of computation.

    Attributes:
        image_size: height and width in pixels.
        dim: width of the space that both towers project into.
        dtype: of activations and products, "float32" or "bfloat16"; parameters are float32.
        scan_layers: loop over the blocks instead of unrolling them (see `apply_blocks`).
        remat: "none", "dots" or "full": what the backward pass recomputes (see `apply_blocks`).
    """

    image_size: tuple[int, int]
    dim: int
    vision: ImageTowerConfig
    text: TextConfig
    dtype: Dtype = "float32"
    scan_layers: bool = False
    remat: Remat = "none"

    def __post_init__(self):
        _check_choice(self, "dtype", Dtype)
        _check_choice(self, "remat", Remat)
        if min(self.vision.grid(self.image_size)) < 1:
            raise ValueError(
                f"CLIPConfig.image_size: {self.image_size} pixels are too small for an image token"
            )

    @classmethod
    def preset(
        cls, name: str, *, patch_stride: int | None = None, **overrides: Any
    ) -> "CLIPConfig":
        """The shape of a published CLIP by name, or "tiny" for tests and small data.

        Args:
            name: one of `PRESETS`.
            patch_stride: in pixels; the patch size if None.
            overrides: other fields, such as `image_size=(384, 128)`; by default the image size of
                the pretraining.

        Raises:
            ValueError: there is no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"no CLIP preset {name!r}; there are {', '.join(PRESETS)}")
        return PRESETS[name].resized(patch_stride=patch_stride, **overrides)

    def resized(
        self,
        image_size: tuple[int, int] | None = None,
        patch_stride: int | None = None,
        **overrides: Any,
    ) -> "CLIPConfig":
        """The same model for another image size or patch stride, if given.

        Raises:
            ValueError: a patch stride is given for an image tower without patches.
        """
        vision = self.vision
        if patch_stride is not None:
            if not hasattr(vision, "patch_stride"):
                raise ValueError(f"patch_stride={patch_stride}: this image tower has no patches")
            vision = dataclasses.replace(vision, patch_stride=patch_stride)
        size = self.image_size if image_size is None else tuple(image_size)
        return dataclasses.replace(self, image_size=size, vision=vision, **overrides)

    def with_towers(
        self,
        *,
        activation: Activation | None = None,
        vision_heads: int | None = None,
        text_heads: int | None = None,
        pixel_mean: Channels | None = None,
        pixel_std: Channels | None = None,
    ) -> "CLIPConfig":
        """The same model with other heads, pixel statistics, or activation in both towers.

        None keeps a value. A ResNet always keeps ReLU.

        Raises:
            ValueError: a width is not a multiple of its heads.
        """
        vision: dict[str, Any] = {"heads": vision_heads}
        vision["pixel_mean"] = pixel_mean and tuple(pixel_mean)
        vision["pixel_std"] = pixel_std and tuple(pixel_std)
        text: dict[str, Any] = {"heads": text_heads, "activation": activation}
        if hasattr(self.vision, "activation"):
            vision["activation"] = activation
        return dataclasses.replace(
            self,
            vision=dataclasses.replace(self.vision, **_given(vision)),
            text=dataclasses.replace(self.text, **_given(text)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON data."""
        data = dataclasses.asdict(self)
        vision = {k: list(v) if isinstance(v, tuple) else v for k, v in data["vision"].items()}
        return data | {"image_size": list(self.image_size), "vision": vision}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CLIPConfig":
        """The config that `to_dict` wrote."""
        vision: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data["vision"].items()
        }
        towers = [kind for kind in IMAGE_TOWER_CONFIGS if _has_fields(kind, vision)]
        if not towers:
            raise ValueError(f"no image tower has the fields {', '.join(vision)}")
        fields: dict[str, Any] = dict(data)
        fields["image_size"] = tuple(data["image_size"])
        fields["vision"], fields["text"] = towers[0](**vision), TextConfig(**data["text"])
        return cls(**fields)


@dataclass(frozen=True)
class AIMAConfig:
    """Shape of an AIMA model.

    Attributes:
        num_categories: person categories of the identity classifier; 0: no classifier.
        fusion_depth: self-attention blocks of the multimodal encoder.
    """

    clip: CLIPConfig
    num_categories: int
    fusion_depth: int = 4

    def __post_init__(self):
        if self.fusion_depth < 1:
            raise ValueError(f"fusion_depth={self.fusion_depth}: expected 1 block or more")

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON data."""
        return dataclasses.asdict(self) | {"clip": self.clip.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "AIMAConfig":
        """The config that `to_dict` wrote."""
        fields: dict[str, Any] = {**data, "clip": CLIPConfig.from_dict(data["clip"])}
        return cls(**fields)


def _check_choice(config: Any, name: str, kind: Any) -> None:
    value = getattr(config, name)
    if value not in get_args(kind):
        raise ValueError(f"{type(config).__name__}.{name}: {value!r} is none of {get_args(kind)}")


def _has_fields(kind: type, names: Collection[str]) -> bool:
    """Whether all names are fields of a config and include all required ones."""
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    return needed <= set(names) <= {f.name for f in dataclasses.fields(kind)}


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _shape(width: int, layers: int) -> dict[str, Any]:
    """Heads of 64 channels and an MLP four times as wide, as in every published CLIP."""
    return {"width": width, "layers": layers, "heads": width // 64, "mlp_width": 4 * width}


def _vit(width: int, layers: int, patch: int) -> ViTConfig:
    return ViTConfig(**_shape(width, layers), patch_size=patch, patch_stride=patch)


def _text(width: int, layers: int = 12) -> TextConfig:
    return TextConfig(**_shape(width, layers))


def _resnet(width: int, layers: tuple[int, int, int, int]) -> ResNetConfig:
    return ResNetConfig(width, layers, heads=width // 2)


PRESETS = {
    "tiny": CLIPConfig((96, 48), 64, _vit(128, 4, patch=8), _text(64, 2)),
    "ViT-B/32": CLIPConfig((224, 224), 512, _vit(768, 12, patch=32), _text(512)),
    "ViT-B/16": CLIPConfig((224, 224), 512, _vit(768, 12, patch=16), _text(512)),
    "ViT-L/14": CLIPConfig((224, 224), 768, _vit(1024, 24, patch=14), _text(768)),
    "ViT-L/14@336": CLIPConfig((336, 336), 768, _vit(1024, 24, patch=14), _text(768)),
    "RN50": CLIPConfig((224, 224), 1024, _resnet(64, (3, 4, 6, 3)), _text(512)),
    "RN101": CLIPConfig((224, 224), 512, _resnet(64, (3, 4, 23, 3)), _text(512)),
    "RN50x4": CLIPConfig((288, 288), 640, _resnet(80, (4, 6, 10, 6)), _text(640)),
    "RN50x16": CLIPConfig((384, 384), 768, _resnet(96, (6, 8, 18, 8)), _text(768)),
    "RN50x64": CLIPConfig((448, 448), 1024, _resnet(128, (3, 15, 36, 10)), _text(1024)),
}
