"""The multimodal encoder and the head that predicts masked words, as in IRRA."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from aima_jax.models.clip import make_blocks
from aima_jax.models.config import CLIPConfig, TransformerConfig
from aima_jax.models.layers import Attention, LayerNorm, Linear, activate, apply_blocks
from aima_jax.platform import Platform


class Fusion(nnx.Module):
    """Text tokens that look at image tokens once, then at each other."""

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
        # No residual around the cross-attention: what goes on is what was seen in the image.
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
    """The fusion's blocks work in the joint space, with heads of 64 channels (IRRA).

    Their activation is that of the text tower, whose tokens they are given.
    """
    if config.dim % 64:
        raise ValueError(f"the fusion module needs a joint dimension in 64s, not {config.dim}")
    return TransformerConfig(
        width=config.dim,
        layers=depth,
        heads=config.dim // 64,
        mlp_width=4 * config.dim,
        activation=config.text.activation,
    )
