"""Scaled dot-product attention in the form that suits a platform."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aima_jax.platform import Platform


def attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    *,
    causal: bool = False,
    lengths: Int[Array, "batch"] | None = None,
    platform: Platform | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Attend to keys: on recent NVIDIA GPUs with cuDNN's kernel, else with XLA matmuls and softmax.

    Args:
        query, key, value: the projected tokens.
        causal: query i sees keys 0 to i only.
        lengths: number of valid keys in each row, from the first; all if None.
        platform: the target platform; None is XLA's form, which is correct on all.
    """
    if platform is not None and has_cudnn_attention(platform, query.dtype, query.shape[-1]):
        return attention_by_cudnn(query, key, value, causal=causal, lengths=lengths)
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=causal, key_value_seq_lengths=lengths, implementation="xla"
    )


def has_cudnn_attention(platform: Platform, dtype: jnp.dtype, head_dim: int) -> bool:
    """Whether cuDNN supports it: 16-bit, NVIDIA GPUs since Ampere, head_dim a multiple of 8."""
    recent = platform.kind == "cuda" and (platform.compute_capability or 0) >= 8
    return recent and dtype.itemsize == 2 and head_dim % 8 == 0


def attention_by_cudnn(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    *,
    causal: bool,
    lengths: Int[Array, "batch"] | None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Attend in one kernel without storing attention weights: 0.85 × a step's temporary memory.

    JAX refuses to train odd numbers of tokens in it, such as CLIP's 193 and 77. They are padded
    with one token, which is masked as a key: it is beyond the lengths, or after all valid queries.
    """
    queries, keys = query.shape[1], key.shape[1]
    if keys % 2 and lengths is None and not causal:
        lengths = jnp.full(len(key), keys)

    def even(
        x: Float[Array, "batch tokens heads head_dim"],
    ) -> Float[Array, "batch even heads dim"]:
        return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))

    mixed = jax.nn.dot_product_attention(
        *map(even, (query, key, value)),
        is_causal=causal,
        key_value_seq_lengths=None if lengths is None else lengths.astype(jnp.int32),
        implementation="cudnn",
    )
    return mixed[:, :queries]
