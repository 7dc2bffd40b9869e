"""AIMA: CLIP, IRRA's multimodal encoder with its MAP head, and the identity classifier."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from aima_jax.models.clip import CLIP, make_blocks
from aima_jax.models.config import AIMAConfig, CLIPConfig, TransformerConfig
from aima_jax.models.layers import Attention, LayerNorm, Linear, activate, apply_blocks
from aima_jax.platform import Platform


class AIMA(nnx.Module):
    """The whole model.

    Args:
        platform: the target platform; None is the plain form, which is correct on all.
    """

    def __init__(self, config: AIMAConfig, *, rngs: nnx.Rngs, platform: Platform | None = None):
        clip, made = config.clip, {"rngs": rngs, "platform": platform}
        self.config = config
        self.clip = CLIP(clip, **made)
        self.fusion = Fusion(clip, config.fusion_depth, **made)
        self.map_head = MapHead(clip, config.fusion_depth, **made)
        self.classifier = (
            Linear(clip.dim, config.num_categories, std=0.001, dtype=clip.dtype, **made)
            if config.num_categories
            else None
        )

    def encode_image(
        self, images: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Global features and tokens of images; see `CLIP.encode_image`."""
        return self.clip.encode_image(images)

    def image_features(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch dim"]:
        """Global features alone; see `CLIP.image_features`."""
        return self.clip.image_features(images)

    def encode_text(
        self, tokens: Int[Array, "batch tokens"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Global features and tokens of sentences; see `CLIP.encode_text`."""
        return self.clip.encode_text(tokens)

    def fuse(
        self,
        text_tokens: Float[Array, "batch tokens dim"],
        image_tokens: Float[Array, "batch image_tokens dim"],
        text_mask: Bool[Array, "batch tokens"],
    ) -> Float[Array, "batch tokens dim"]:
        """Text tokens fused with the image by attention.

        Args:
            text_tokens, image_tokens: as returned by the encoders.
            text_mask: True for the first tokens of each row, up to and including the first end of
                text; the others are masked out (our decision: IRRA keeps them).
        """
        return self.fusion(text_tokens, image_tokens, text_mask)

    def predict_masked(
        self, hidden: Float[Array, "batch positions dim"]
    ) -> Float[Array, "batch positions vocabulary"]:
        """Float32 vocabulary logits for some positions of `fuse`'s result."""
        return self.map_head(hidden)

    def classify(self, features: Float[Array, "batch dim"]) -> Float[Array, "batch category"]:
        """Float32 person category logits for unnormalised global features.

        Raises:
            ValueError: the model has no identity classifier.
        """
        if self.classifier is None:
            raise ValueError("this model has no identity classifier: num_categories is 0")
        return self.classifier(features, output_dtype="float32")


class Fusion(nnx.Module):
    """One cross-attention from text to image tokens, then self-attention among text tokens."""

    def __init__(
        self, config: CLIPConfig, depth: int, *, rngs: nnx.Rngs, platform: Platform | None = None
    ):
        shape = fusion_shape(config, depth)
        self.text_norm = LayerNorm(config.dim)
        self.image_norm = LayerNorm(config.dim)
        self.cross_attention = Attention(shape, dtype=config.dtype, rngs=rngs, platform=platform)
        self.blocks = make_blocks(config, shape, causal=False, rngs=rngs, platform=platform)
        self.final_norm = LayerNorm(config.dim)
        self.config = config

    def __call__(
        self,
        text_tokens: Float[Array, "batch tokens dim"],
        image_tokens: Float[Array, "batch image_tokens dim"],
        text_mask: Bool[Array, "batch tokens"],
    ) -> Float[Array, "batch tokens dim"]:
        # No residual around the cross-attention: its output replaces the text tokens.
        x = self.cross_attention(self.text_norm(text_tokens), self.image_norm(image_tokens))
        x = apply_blocks(
            self.blocks,
            x,
            lengths=jnp.sum(text_mask, axis=-1),
            scan_layers=self.config.scan_layers,
            remat=self.config.remat,
        )
        return self.final_norm(x)


class MapHead(nnx.Module):
    """Logits over the vocabulary for tokens of the multimodal encoder."""

    def __init__(
        self, config: CLIPConfig, depth: int, *, rngs: nnx.Rngs, platform: Platform | None = None
    ):
        _, outward, upward = fusion_shape(config, depth).initial_scales()
        dim = config.dim
        linear = partial(Linear, dim, dtype=config.dtype, rngs=rngs, platform=platform)
        self.dense = linear(dim, std=upward)
        self.norm = LayerNorm(dim)
        self.output = linear(config.text.vocabulary, std=outward)

    def __call__(
        self, hidden: Float[Array, "batch positions dim"]
    ) -> Float[Array, "batch positions vocabulary"]:
        x = self.norm(activate(self.dense(hidden), "quick_gelu"))
        return self.output(x, output_dtype="float32")


def fusion_shape(config: CLIPConfig, depth: int) -> TransformerConfig:
    """Shape of the fusion's blocks: the joint space's width, heads of 64 channels (IRRA).

    The activation is the text tower's, since its tokens are the input.
    """
    if config.dim % 64:
        raise ValueError(f"the fusion module needs a multiple of 64 as joint dim, not {config.dim}")
    return TransformerConfig(
        width=config.dim,
        layers=depth,
        heads=config.dim // 64,
        mlp_width=4 * config.dim,
        activation=config.text.activation,
    )
