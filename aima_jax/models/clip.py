"""CLIP's two towers (Radford et al. 2021), for any image size and patch stride."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from aima_jax.models.config import CLIPConfig, Dtype, ResNetConfig, TransformerConfig, ViTConfig
from aima_jax.models.layers import Block, LayerNorm, Linear, apply_blocks, normal, resize_positions
from aima_jax.models.resnet import ModifiedResNet
from aima_jax.platform import Platform
from aima_jax.text.tokenizer import END_TOKEN


class PatchEmbedding(nnx.Module):
    """A convolution without padding or bias that turns each patch into a token."""

    def __init__(self, config: ViTConfig, *, dtype: Dtype, rngs: nnx.Rngs):
        fan_in = 3 * config.patch_size**2
        shape = (config.patch_size, config.patch_size, 3, config.width)
        self.kernel = normal(rngs, shape, std=(3 * fan_in) ** -0.5)
        self.stride = config.patch_stride
        self.dtype = dtype

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch rows columns channels"]:
        return jax.lax.conv_general_dilated(
            images.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class VisionTransformer(nnx.Module):
    """CLIP's image tower; its first token is the class token."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs, platform: Platform | None = None):
        vision = config.vision
        assert isinstance(vision, ViTConfig)
        std = vision.width**-0.5
        rows, columns = vision.grid(config.image_size)
        self.patch_embedding = PatchEmbedding(vision, dtype=config.dtype, rngs=rngs)
        self.class_embedding = normal(rngs, (vision.width,), std)
        self.position_embedding = normal(rngs, (1 + rows * columns, vision.width), std)
        self.pre_norm = LayerNorm(vision.width)
        self.blocks = make_blocks(config, vision, causal=False, rngs=rngs, platform=platform)
        self.post_norm = LayerNorm(vision.width)
        self.projection = Linear(
            vision.width,
            config.dim,
            std=std,
            dtype=config.dtype,
            use_bias=False,
            rngs=rngs,
            platform=platform,
        )
        self.config = config

    def embed(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens channels"]:
        """Class and patch tokens with position embeddings."""
        patches = self.patch_embedding(images)
        batch, rows, columns, width = patches.shape
        own_grid = self.config.vision.grid(self.config.image_size)
        positions = resize_positions(self.position_embedding[...], own_grid, (rows, columns))
        class_token = jnp.broadcast_to(self.class_embedding[...], (batch, 1, width))
        patches = patches.reshape(batch, -1, width)
        tokens = jnp.concatenate([class_token.astype(patches.dtype), patches], axis=1)
        return tokens + positions.astype(tokens.dtype)

    def __call__(
        self, images: Float[Array, "batch height width 3"], first: int | None = None
    ) -> Float[Array, "batch first dim"]:
        tokens = apply_blocks(
            self.blocks,
            self.pre_norm(self.embed(images)),
            scan_layers=self.config.scan_layers,
            remat=self.config.remat,
            first=first,
        )
        return self.projection(self.post_norm(tokens))


# Each module returns [batch, tokens, dim], the global token first; only `first` tokens if given.
IMAGE_TOWERS = {ViTConfig: VisionTransformer, ResNetConfig: ModifiedResNet}


class TextTransformer(nnx.Module):
    """CLIP's causal text tower."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs, platform: Platform | None = None):
        text = config.text
        self.token_embedding = normal(rngs, (text.vocabulary, text.width), 0.02)
        self.position_embedding = normal(rngs, (text.context_length, text.width), 0.01)
        self.blocks = make_blocks(config, text, causal=True, rngs=rngs, platform=platform)
        self.final_norm = LayerNorm(text.width)
        self.projection = Linear(
            text.width,
            config.dim,
            std=text.width**-0.5,
            dtype=config.dtype,
            use_bias=False,
            rngs=rngs,
            platform=platform,
        )
        self.config = config

    def embed(self, tokens: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens channels"]:
        """Token embeddings with position embeddings.

        Raises:
            ValueError: the sentences are longer than the context.
        """
        length, context = tokens.shape[1], self.config.text.context_length
        if length > context:
            raise ValueError(f"sentences of {length} tokens; the text encoder takes {context}")
        embedded = self.token_embedding[tokens] + self.position_embedding[:length]
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
    config: CLIPConfig,
    shape: TransformerConfig,
    *,
    causal: bool,
    rngs: nnx.Rngs,
    platform: Platform | None = None,
) -> nnx.List[Block]:
    """The blocks of one tower."""
    block = partial(
        Block,
        shape,
        causal=causal,
        dtype=config.dtype,
        rngs=rngs,
        platform=platform,
    )
    return nnx.List([block() for _ in range(shape.layers)])


def text_mask(tokens: Int[Array, "batch tokens"]) -> Bool[Array, "batch tokens"]:
    """True up to and including the first end of text."""
    ends = tokens == END_TOKEN
    return jnp.cumsum(ends, axis=-1) - ends == 0


class CLIP(nnx.Module):
    """An image tower and a text tower that project into one space.

    Args:
        platform: the target platform; None is the plain form, which is correct on all.
    """

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs, platform: Platform | None = None):
        self.config = config
        self.vision = IMAGE_TOWERS[type(config.vision)](config, rngs=rngs, platform=platform)
        self.text = TextTransformer(config, rngs=rngs, platform=platform)

    def encode_image(
        self, images: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Encode images normalised as CLIP expects.

        For images of another size than the config's, the position grid is resized bilinearly.

        Returns:
            The global features in float32, not normalised, and all projected tokens in the
            config's dtype, the global one first.
        """
        tokens = self.vision(images)
        return tokens[:, 0].astype(jnp.float32), tokens

    def image_features(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch dim"]:
        """The global features of `encode_image`, without computation only other tokens need."""
        return self.vision(images, first=1)[:, 0].astype(jnp.float32)

    def encode_text(
        self, tokens: Int[Array, "batch tokens"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Encode sentences of at most the context length.

        Returns:
            The global features in float32, not normalised, from the first end of text, and all
            projected tokens in the config's dtype.

        Raises:
            ValueError: the sentences are longer than the context.
        """
        encoded = self.text(tokens)
        end = jnp.argmax(tokens == END_TOKEN, axis=-1)
        features = jnp.take_along_axis(encoded, end[:, None, None], axis=1)[:, 0]
        return features.astype(jnp.float32), encoded
