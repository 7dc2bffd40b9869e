"""CLIP's two towers (Radford et al. 2021), for images of any size and stride of the patches."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from aima_jax.models.layers import (
    Activation,
    Block,
    LayerNorm,
    Linear,
    Remat,
    TransformerConfig,
    apply_blocks,
    normal,
)
from aima_jax.models.positions import resize_positions
from aima_jax.models.resnet import ModifiedResNet, ResNetConfig

END_OF_TEXT = 49407


@dataclass(frozen=True)
class ViTConfig(TransformerConfig):
    """Shape of a vision transformer; sizes in pixels."""

    patch_size: int
    patch_stride: int

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches in an image, as a convolution without padding counts them."""
        rows, columns = ((side - self.patch_size) // self.patch_stride + 1 for side in image_size)
        return rows, columns


@dataclass(frozen=True)
class TextConfig(TransformerConfig):
    """Shape of the text transformer."""

    context_length: int = 77
    vocabulary: int = 49408


@dataclass(frozen=True)
class CLIPConfig:
    """Shape of a CLIP model and how it is computed.

    Attributes:
        image_size: height and width in pixels.
        dim: width of the space that both towers project into.
        dtype: of activations and products, "float32" or "bfloat16"; parameters are float32.
        scan_layers: loop over the blocks instead of unrolling them (see `apply_blocks`).
        remat: "none", "dots" or "full": what the backward pass computes again (see `apply_blocks`).
    """

    image_size: tuple[int, int]
    dim: int
    vision: ViTConfig | ResNetConfig
    text: TextConfig
    activation: Activation = "quick_gelu"
    dtype: str = "float32"
    scan_layers: bool = False
    remat: Remat = "none"

    def __post_init__(self):
        for name, kind in (("activation", Activation), ("remat", Remat)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"CLIPConfig.{name}: {getattr(self, name)!r} is none of {get_args(kind)}"
                )
        if min(self.vision.grid(self.image_size)) < 1:
            raise ValueError(
                f"CLIPConfig.image_size: {self.image_size} pixels have no room for one image token"
            )

    @classmethod
    def preset(
        cls, name: str, *, patch_stride: int | None = None, **overrides: Any
    ) -> "CLIPConfig":
        """A published CLIP's shape by its name, or "tiny" for tests and small data.

        Args:
            name: one of `PRESETS`.
            patch_stride: in pixels; the patch size if None.
            overrides: other fields, as `image_size=(384, 128)`; the image size is that of the
                pretraining unless given.

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
        """The same model for another image size and patch stride, where they are given.

        Raises:
            ValueError: a ResNet, which has no patches, gets a patch stride.
        """
        vision = self.vision
        if patch_stride is not None:
            if not isinstance(vision, ViTConfig):
                raise ValueError(f"patch_stride={patch_stride}: a ResNet has no patches")
            vision = dataclasses.replace(vision, patch_stride=patch_stride)
        size = self.image_size if image_size is None else tuple(image_size)
        return dataclasses.replace(self, image_size=size, vision=vision, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON data."""
        data = dataclasses.asdict(self) | {"image_size": list(self.image_size)}
        if isinstance(self.vision, ResNetConfig):
            data["vision"]["layers"] = list(self.vision.layers)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CLIPConfig":
        """The config that `to_dict` wrote."""
        vision = dict(data["vision"])
        if "patch_size" in vision:
            vision = ViTConfig(**vision)
        else:
            vision = ResNetConfig(**vision | {"layers": tuple(vision["layers"])})
        size = tuple(data["image_size"])
        text = TextConfig(**data["text"])
        return cls(**data | {"image_size": size, "vision": vision, "text": text})


def _shape(width: int, layers: int) -> dict[str, int]:
    """Heads of 64 channels and an MLP four times as wide, as in every published CLIP."""
    return {"width": width, "layers": layers, "heads": width // 64, "mlp_width": 4 * width}


def _vit(width: int, layers: int, patch: int) -> ViTConfig:
    return ViTConfig(**_shape(width, layers), patch_size=patch, patch_stride=patch)


def _text(width: int, layers: int = 12) -> TextConfig:
    return TextConfig(**_shape(width, layers))


def _resnet(width: int, *layers: int) -> ResNetConfig:
    return ResNetConfig(width, layers, heads=width // 2)


PRESETS = {
    "tiny": CLIPConfig((96, 48), 64, _vit(128, 4, patch=8), _text(64, 2)),
    "ViT-B/32": CLIPConfig((224, 224), 512, _vit(768, 12, patch=32), _text(512)),
    "ViT-B/16": CLIPConfig((224, 224), 512, _vit(768, 12, patch=16), _text(512)),
    "ViT-L/14": CLIPConfig((224, 224), 768, _vit(1024, 24, patch=14), _text(768)),
    "ViT-L/14@336": CLIPConfig((336, 336), 768, _vit(1024, 24, patch=14), _text(768)),
    "RN50": CLIPConfig((224, 224), 1024, _resnet(64, 3, 4, 6, 3), _text(512)),
    "RN101": CLIPConfig((224, 224), 512, _resnet(64, 3, 4, 23, 3), _text(512)),
    "RN50x4": CLIPConfig((288, 288), 640, _resnet(80, 4, 6, 10, 6), _text(640)),
}


class PatchEmbedding(nnx.Module):
    """A convolution without padding or bias that turns each patch into a token."""

    def __init__(self, config: ViTConfig, *, dtype: str, rngs: nnx.Rngs):
        fan_in = 3 * config.patch_size**2
        shape = (config.patch_size, config.patch_size, 3, config.width)
        self.kernel = normal(rngs, shape, std=(3 * fan_in) ** -0.5)
        self.stride = config.patch_stride
        self.dtype = dtype

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch rows columns channels"]:
        kernel = self.kernel[...].astype(self.dtype)
        images = images.astype(self.dtype)
        size = kernel.shape[0]
        if size != self.stride:
            return jax.lax.conv_general_dilated(
                images,
                kernel,
                window_strides=(self.stride, self.stride),
                padding="VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        # Patches that do not overlap need only one matrix product.
        batch, height, width, _ = images.shape
        rows, columns = height // size, width // size
        patches = images[:, : rows * size, : columns * size]
        patches = patches.reshape(batch, rows, size, columns, size, 3).swapaxes(2, 3)
        tokens = patches.reshape(batch * rows * columns, -1) @ kernel.reshape(-1, kernel.shape[-1])
        return tokens.reshape(batch, rows, columns, -1)


class VisionTransformer(nnx.Module):
    """CLIP's image tower; its first token is the class token."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
        vision = config.vision
        std = vision.width**-0.5
        rows, columns = config.vision.grid(config.image_size)
        self.patch_embedding = PatchEmbedding(vision, dtype=config.dtype, rngs=rngs)
        self.class_embedding = normal(rngs, (vision.width,), std)
        self.position_embedding = normal(rngs, (1 + rows * columns, vision.width), std)
        self.pre_norm = LayerNorm(vision.width)
        self.blocks = make_blocks(config, vision, causal=False, rngs=rngs)
        self.post_norm = LayerNorm(vision.width)
        self.projection = Linear(
            vision.width, config.dim, std=std, dtype=config.dtype, use_bias=False, rngs=rngs
        )
        self.config = config

    def embed(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens channels"]:
        """Patches and class token with their positions."""
        patches = self.patch_embedding(images)
        batch, *grid, width = patches.shape
        positions = resize_positions(
            self.position_embedding[...],
            self.config.vision.grid(self.config.image_size),
            tuple(grid),
        )
        tokens = jnp.concatenate(
            [
                jnp.broadcast_to(self.class_embedding[...], (batch, 1, width)).astype(
                    patches.dtype
                ),
                patches.reshape(batch, -1, width),
            ],
            axis=1,
        )
        return tokens + positions.astype(tokens.dtype)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens dim"]:
        tokens = self.pre_norm(self.embed(images))
        tokens = apply_blocks(
            self.blocks, tokens, scan_layers=self.config.scan_layers, remat=self.config.remat
        )
        return self.projection(self.post_norm(tokens))


class TextTransformer(nnx.Module):
    """CLIP's causal text tower."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
        text = config.text
        self.token_embedding = normal(rngs, (text.vocabulary, text.width), 0.02)
        self.position_embedding = normal(rngs, (text.context_length, text.width), 0.01)
        self.blocks = make_blocks(config, text, causal=True, rngs=rngs)
        self.final_norm = LayerNorm(text.width)
        self.projection = Linear(
            text.width,
            config.dim,
            std=text.width**-0.5,
            dtype=config.dtype,
            use_bias=False,
            rngs=rngs,
        )
        self.config = config

    def embed(self, tokens: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens channels"]:
        """Words with their positions.

        Raises:
            ValueError: the sentences are longer than the context.
        """
        length, context = tokens.shape[1], self.config.text.context_length
        if length > context:
            raise ValueError(f"sentences of {length} tokens; the text encoder takes {context}")
        embedded = self.token_embedding[...][tokens] + self.position_embedding[:length]
        return embedded.astype(self.config.dtype)

    def __call__(self, tokens: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens dim"]:
        x = apply_blocks(
            self.blocks,
            self.embed(tokens),
            scan_layers=self.config.scan_layers,
            remat=self.config.remat,
        )
        return self.projection(self.final_norm(x))


def make_blocks(
    config: CLIPConfig, shape: TransformerConfig, *, causal: bool, rngs: nnx.Rngs
) -> nnx.List[Block]:
    """The blocks of one tower."""
    block = partial(
        Block, shape, activation=config.activation, causal=causal, dtype=config.dtype, rngs=rngs
    )
    return nnx.List([block() for _ in range(shape.layers)])


def text_mask(tokens: Int[Array, "batch tokens"]) -> Bool[Array, "batch tokens"]:
    """True up to and including the first end of text."""
    ends = tokens == END_OF_TEXT
    return jnp.cumsum(ends, axis=-1) - ends == 0


class CLIP(nnx.Module):
    """An image tower and a text tower that project into one space."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
        self.config = config
        if isinstance(config.vision, ViTConfig):
            self.vision = VisionTransformer(config, rngs=rngs)
        else:
            self.vision = ModifiedResNet(
                config.vision,
                image_size=config.image_size,
                dim=config.dim,
                dtype=config.dtype,
                rngs=rngs,
            )
        self.text = TextTransformer(config, rngs=rngs)

    def encode_image(
        self, images: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Encodes images that are normalised as CLIP's.

        Images of another size than the config's get the position grid resized, bilinearly.

        Returns:
            The global features in float32, not normalised, and every projected token in the
            config's dtype, of which the first is the global one.
        """
        tokens = self.vision(images)
        return tokens[:, 0].astype(jnp.float32), tokens

    def encode_text(
        self, tokens: Int[Array, "batch tokens"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Encodes sentences of at most the context length.

        Returns:
            The global features in float32, not normalised, which are those of the first end of
            text, and every projected token in the config's dtype.

        Raises:
            ValueError: the sentences are longer than the context.
        """
        encoded = self.text(tokens)
        end = jnp.argmax(tokens == END_OF_TEXT, axis=-1)
        features = jnp.take_along_axis(encoded, end[:, None, None], axis=1)[:, 0]
        return features.astype(jnp.float32), encoded
