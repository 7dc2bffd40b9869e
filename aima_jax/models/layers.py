"""The layers that both CLIP towers and the fusion module are made of."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from aima_jax.models.backward import add_bias, computed_again, layer_norm, matmul
from aima_jax.models.config import Activation, Dtype, Remat, TransformerConfig
from aima_jax.platform import Platform

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def normal(rngs: nnx.Rngs, shape: Sequence[int], std: float) -> nnx.Param:
    """A float32 parameter drawn from a normal distribution."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape))


class Linear(nnx.Module):
    """x·kernel + bias over the last axis, computed in `dtype`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        std: float,
        dtype: Dtype,
        rngs: nnx.Rngs,
        use_bias: bool = True,
        platform: Platform | None = None,
    ):
        self.kernel = normal(rngs, (inputs, outputs), std)
        self.bias = nnx.Param(jnp.zeros(outputs)) if use_bias else None
        self.dtype = dtype
        self.platform = platform

    def __call__(
        self, x: Float[Array, "*rows inputs"], *, output_dtype: Dtype | None = None
    ) -> Float[Array, "*rows outputs"]:
        kernel = self.kernel[...].astype(self.dtype)
        # A product of two matrices: XLA's CPU backend is twice as slow on one of three axes by two.
        rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        if output_dtype in (None, self.dtype):
            y = rows @ kernel
        else:
            y = matmul(rows, kernel, output_dtype)
        if self.bias is not None:
            y = add_bias(y, self.bias[...].astype(y.dtype), self.platform)
        return y.reshape(*x.shape[:-1], -1)


class LayerNorm(nnx.Module):
    """Layer normalisation with statistics in float32 and CLIP's epsilon of 1e-5."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*rows channels"]) -> Float[Array, "*rows channels"]:
        # Over rows: with more axes, XLA's GPU backend transposes the tokens forth and back.
        rows = x.reshape(-1, x.shape[-1])
        return layer_norm(rows, self.scale[...], self.bias[...]).reshape(x.shape)


def activate(x: Float[Array, "*shape"], activation: Activation) -> Float[Array, "*shape"]:
    """QuickGELU, x·sigmoid(1.702·x), or the exact GELU that some retrained CLIPs have."""
    if activation == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=False)


def attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    *,
    causal: bool = False,
    lengths: Int[Array, "batch"] | None = None,
    platform: Platform | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Scaled dot-product attention in the form that is quickest on a platform.

    Args:
        query, key, value: the projected tokens.
        causal: query i sees keys 0 to i only.
        lengths: how many keys of each row exist, the first ones; all if None.
    """
    if platform is not None and platform.kind == "cpu":
        return _attention_by_head(query, key, value, causal=causal, lengths=lengths)
    if _has_fused_attention(platform, query.dtype, query.shape[-1]):
        return _attention_by_cudnn(query, key, value, causal=causal, lengths=lengths)
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=causal, key_value_seq_lengths=lengths, implementation="xla"
    )


def _has_fused_attention(platform: Platform | None, dtype: jnp.dtype, head_dim: int) -> bool:
    """Whether cuDNN has it: in 16 bits, on NVIDIA's GPUs since Ampere, heads in 8s of channels."""
    recent = platform is not None and (platform.compute_capability or 0) >= 8
    return recent and dtype.itemsize == 2 and head_dim % 8 == 0


def _attention_by_cudnn(
    query: Array, key: Array, value: Array, *, causal: bool, lengths: Array | None
) -> Array:
    """Attention by cuDNN, which JAX lets train on even numbers of tokens only, and without a mask.

    CLIP's 193 and 77 tokens get one more. As a key it does not exist: its place is beyond the
    lengths, or after every query that counts.
    """
    queries = query.shape[1]
    if lengths is None and not causal:
        lengths = _length_if_odd(key)
    query, key, value = map(_even, (query, key, value))
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        key_value_seq_lengths=None if lengths is None else lengths.astype(jnp.int32),
        implementation="cudnn",
    )
    return mixed[:, :queries]


def _even(x: Float[Array, "batch tokens *rest"]) -> Float[Array, "batch even_tokens *rest"]:
    """With one more token where their number is odd."""
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, x.shape[1] % 2)
    return jnp.pad(x, padding)


def _length_if_odd(x: Float[Array, "batch tokens *rest"]) -> Int[Array, "batch"] | None:
    """How many tokens each row has before `_even` adds one."""
    return jnp.full(len(x), x.shape[1]) if x.shape[1] % 2 else None


def _attention_by_head(
    query: Array, key: Array, value: Array, *, causal: bool, lengths: Array | None
) -> Array:
    """Attention over [batch·heads, tokens, head_dim], on a CPU far quicker than with four axes."""
    batch, queries, heads, head_dim = query.shape
    keys = key.shape[1]

    def by_head(x: Array) -> Array:
        return x.swapaxes(1, 2).reshape(batch * heads, -1, head_dim)

    exists = jnp.ones((1, 1, keys), bool)
    if causal:
        exists = jnp.tri(queries, keys, dtype=bool)[None]
    if lengths is not None:
        exists &= jnp.arange(keys) < jnp.repeat(lengths, heads)[:, None, None]
    scores = jnp.einsum(
        "bqd,bkd->bqk",
        by_head(query * head_dim**-0.5),
        by_head(key),
        preferred_element_type=jnp.float32,
    )
    weights = jax.nn.softmax(scores, where=exists, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("bqk,bkd->bqd", weights, by_head(value))
    return mixed.reshape(batch, heads, queries, head_dim).swapaxes(1, 2)


class Attention(nnx.Module):
    """Multi-head attention of one sequence of tokens to another, or to itself."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        inward, outward, _ = config.initial_scales()
        linear = partial(
            Linear, config.width, config.width, dtype=dtype, rngs=rngs, platform=platform
        )
        self.query = linear(std=inward)
        self.key = linear(std=inward)
        self.value = linear(std=inward)
        self.out = linear(std=outward)
        self.heads = config.heads
        self.platform = platform

    def __call__(
        self,
        x: Float[Array, "batch queries channels"],
        context: Float[Array, "batch keys channels"],
    ) -> Float[Array, "batch queries channels"]:
        return self.mix(self.query(x), self.key(context), self.value(context))

    def project(
        self, x: Float[Array, "batch tokens channels"], norm: LayerNorm, first: int | None
    ) -> tuple[
        Float[Array, "batch first channels"],
        Float[Array, "batch tokens channels"],
        Float[Array, "batch tokens channels"],
    ]:
        """Queries of the first tokens of the normalised x, keys and values of all."""

        def project(
            x: Array, norm: LayerNorm, query: Linear, key: Linear, value: Linear
        ) -> tuple[Array, Array, Array]:
            y = norm(x)
            return query(y[:, :first]), key(y), value(y)

        return computed_again(project, self.platform)(x, norm, self.query, self.key, self.value)

    def mix(
        self,
        query: Float[Array, "batch queries channels"],
        key: Float[Array, "batch keys channels"],
        value: Float[Array, "batch keys channels"],
        *,
        causal: bool = False,
        lengths: Int[Array, "batch"] | None = None,
    ) -> Float[Array, "batch queries channels"]:
        """What the queries find, projected; see `attention`."""

        def split(tokens: Array) -> Array:
            return tokens.reshape(*tokens.shape[:2], self.heads, -1)

        def mix(
            query: Array, key: Array, value: Array, out: Linear, lengths: Array | None
        ) -> Array:
            mixed = attention(
                split(query),
                split(key),
                split(value),
                causal=causal,
                lengths=lengths,
                platform=self.platform,
            )
            return out(mixed.reshape(query.shape))

        # With more keys than channels of a head, its weights would take more memory than its
        # queries.
        if key.shape[1] > query.shape[-1] // self.heads:
            mix = computed_again(mix, self.platform)
        return mix(query, key, value, self.out, lengths)


class MLP(nnx.Module):
    """Two linear layers with the activation between them."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        activation: Activation,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        _, outward, upward = config.initial_scales()
        linear = partial(Linear, dtype=dtype, rngs=rngs, platform=platform)
        self.up = linear(config.width, config.mlp_width, std=upward)
        self.down = linear(config.mlp_width, config.width, std=outward)
        self.activation = activation
        self.platform = platform

    def __call__(
        self, x: Float[Array, "batch tokens channels"], norm: LayerNorm
    ) -> Float[Array, "batch tokens channels"]:
        """The MLP of the normalised x."""

        def widen(x: Array, norm: LayerNorm, up: Linear) -> Array:
            return up(norm(x))

        def narrow(hidden: Array, down: Linear) -> Array:
            return down(activate(hidden, self.activation))

        hidden = computed_again(widen, self.platform)(x, norm, self.up)
        return computed_again(narrow, self.platform)(hidden, self.down)


class Block(nnx.Module):
    """A residual block with pre-normalisation: self-attention, then an MLP.

    For its backward pass on a CPU it keeps the tokens that come in, queries, keys and values, the
    tokens that the MLP gets and its hidden layer, and weights of attention where they are small.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        activation: Activation,
        causal: bool,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        made = {"dtype": dtype, "rngs": rngs, "platform": platform}
        self.attention_norm = LayerNorm(config.width)
        self.attention = Attention(config, **made)
        self.mlp_norm = LayerNorm(config.width)
        self.mlp = MLP(config, activation=activation, **made)
        self.causal = causal

    def __call__(
        self,
        x: Float[Array, "batch tokens channels"],
        lengths: Int[Array, "batch"] | None = None,
        first: int | None = None,
    ) -> Float[Array, "batch first channels"]:
        projected = self.attention.project(x, self.attention_norm, first)
        x = x[:, :first] + self.attention.mix(*projected, causal=self.causal, lengths=lengths)
        return x + self.mlp(x, self.mlp_norm)


def apply_blocks(
    blocks: Sequence[Block],
    x: Float[Array, "batch tokens channels"],
    lengths: Int[Array, "batch"] | None = None,
    *,
    scan_layers: bool,
    remat: Remat,
    first: int | None = None,
) -> Float[Array, "batch first channels"]:
    """Applies blocks of one shape in turn.

    Args:
        blocks: the blocks; each keeps its own parameters.
        x: the tokens.
        lengths: how many tokens of each row exist; all if None.
        scan_layers: compile one block and loop over it, on parameters stacked inside the step:
            shorter to compile, a little slower to run.
        remat: what the backward pass computes again: nothing, all but the matrix products ("dots",
            which a CPU does for long sequences anyway), or all but the tokens between blocks
            ("full").
        first: how many tokens the last block computes, from all that are before it; all if None.
    """
    head_dim = x.shape[-1] // blocks[0].attention.heads
    platform = blocks[0].attention.platform
    if x.shape[1] % 2 and _has_fused_attention(platform, x.dtype, head_dim):
        if lengths is None and not blocks[0].causal:
            lengths = _length_if_odd(x)
        # Here, so that cuDNN's attention does not have to add a token in each block.
        options = {"scan_layers": scan_layers, "remat": remat, "first": first}
        return apply_blocks(blocks, _even(x), lengths, **options)[:, : x.shape[1]]
    if first is not None:
        if len(blocks) > 1:
            x = apply_blocks(blocks[:-1], x, lengths, scan_layers=scan_layers, remat=remat)
        return blocks[-1](x, lengths, first)
    graph = nnx.split(blocks[0])[0]
    states = [nnx.split(block)[1] for block in blocks]

    def apply(x: Array, state: nnx.State) -> Array:
        return nnx.merge(graph, state)(x, lengths)

    if remat != "none":
        apply = jax.checkpoint(apply, policy=REMAT_POLICIES[remat], prevent_cse=not scan_layers)
    if scan_layers:
        stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *states)
        return jax.lax.scan(lambda x, state: (apply(x, state), None), x, stacked)[0]
    for state in states:
        x = apply(x, state)
    return x
