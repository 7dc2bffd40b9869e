"""The layers of both CLIP towers and the fusion module."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from aima_jax.models import cpu
from aima_jax.models.attention import attention
from aima_jax.models.config import Activation, Channels, Dtype, Remat, TransformerConfig
from aima_jax.platform import CPU, Platform

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
        self.dtype: Dtype = dtype
        self.platform = platform

    def __call__(
        self, x: Float[Array, "*rows inputs"], *, output_dtype: Dtype | None = None
    ) -> Float[Array, "*rows outputs"]:
        output_dtype = output_dtype or self.dtype
        matmul = cpu.matmul if self.platform == CPU else jnp.matmul
        kernel = self.kernel[...].astype(self.dtype)
        y = matmul(x.astype(self.dtype), kernel, preferred_element_type=output_dtype)
        return y if self.bias is None else y + self.bias[...].astype(output_dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation with statistics in float32 and CLIP's epsilon of 1e-5."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*rows channels"]) -> Float[Array, "*rows channels"]:
        y = x.astype(jnp.float32)
        y -= jnp.mean(y, axis=-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-5)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


def activate(x: Float[Array, "*shape"], activation: Activation) -> Float[Array, "*shape"]:
    """QuickGELU, x·sigmoid(1.702·x), or the exact GELU of some retrained CLIPs."""
    if activation == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=False)


class Attention(nnx.Module):
    """Multi-head self-attention, or cross-attention to the tokens of a context."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        causal: bool = False,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        inward, outward, _ = config.initial_scales()
        linear = partial(Linear, config.width, config.width, dtype=dtype, rngs=rngs)
        self.query = linear(std=inward, platform=platform)
        self.key = linear(std=inward, platform=platform)
        self.value = linear(std=inward, platform=platform)
        self.out = linear(std=outward, platform=platform)
        self.heads = config.heads
        self.causal = causal
        self.platform = platform

    def __call__(
        self,
        x: Float[Array, "batch tokens channels"],
        context: Float[Array, "batch keys channels"] | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        first: int | None = None,
    ) -> Float[Array, "batch queries channels"]:
        """Attend from the `first` tokens, or all, to the first `lengths` tokens of the context."""
        context = x if context is None else context
        query, key, value = self.query(x[:, :first]), self.key(context), self.value(context)
        mixed = attention(
            *(tokens.reshape(*tokens.shape[:2], self.heads, -1) for tokens in (query, key, value)),
            causal=self.causal,
            lengths=lengths,
            platform=self.platform,
        )
        return self.out(mixed.reshape(query.shape))


class MLP(nnx.Module):
    """Two linear layers with the activation between them."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        _, outward, upward = config.initial_scales()
        linear = partial(Linear, dtype=dtype, rngs=rngs, platform=platform)
        self.up = linear(config.width, config.mlp_width, std=upward)
        self.down = linear(config.mlp_width, config.width, std=outward)
        self.activation: Activation = config.activation

    def __call__(
        self, x: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens channels"]:
        return self.down(activate(self.up(x), self.activation))


class Block(nnx.Module):
    """A residual block with pre-normalisation: self-attention, then an MLP."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        causal: bool,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        options = {"dtype": dtype, "rngs": rngs, "platform": platform}
        self.attention_norm = LayerNorm(config.width)
        self.attention = Attention(config, causal=causal, **options)
        self.mlp_norm = LayerNorm(config.width)
        self.mlp = MLP(config, **options)

    def __call__(
        self,
        x: Float[Array, "batch tokens channels"],
        lengths: Int[Array, "batch"] | None = None,
        first: int | None = None,
    ) -> Float[Array, "batch first channels"]:
        x = x[:, :first] + self.attention(self.attention_norm(x), lengths=lengths, first=first)
        return x + self.mlp(self.mlp_norm(x))


def apply_blocks(
    blocks: Sequence[Block],
    x: Float[Array, "batch tokens channels"],
    lengths: Int[Array, "batch"] | None = None,
    *,
    scan_layers: bool,
    remat: Remat,
    first: int | None = None,
) -> Float[Array, "batch first channels"]:
    """Apply blocks of one shape in sequence.

    Args:
        blocks: the blocks; each keeps its own parameters.
        x: the tokens.
        lengths: number of valid tokens in each row; all if None.
        scan_layers: compile one block and loop over it, on parameters stacked inside the step:
            faster to compile, a little slower to run.
        remat: what the backward pass recomputes: nothing, all but the matrix products ("dots",
            always used on a CPU), or all but the tokens between blocks ("full").
        first: number of tokens that the last block computes, from all its inputs; all if None.
    """
    if first is not None:
        if len(blocks) > 1:
            x = apply_blocks(blocks[:-1], x, lengths, scan_layers=scan_layers, remat=remat)
        return blocks[-1](x, lengths, first)
    graph = nnx.split(blocks[0])[0]
    states = [nnx.split(block)[1] for block in blocks]

    def apply(x: Array, state: nnx.State, lengths: Array | None) -> Array:
        return nnx.merge(graph, state)(x, lengths)

    if blocks[0].attention.platform == CPU:
        apply = cpu.checkpoint(apply, policy=REMAT_POLICIES["full" if remat == "full" else "dots"])
    elif remat != "none":
        apply = jax.checkpoint(apply, policy=REMAT_POLICIES[remat], prevent_cse=not scan_layers)
    if scan_layers:
        stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *states)
        return jax.lax.scan(lambda x, state: (apply(x, state, lengths), None), x, stacked)[0]
    for state in states:
        x = apply(x, state, lengths)
    return x


Resize = Literal["bilinear", "bicubic"]


def resize_positions(
    table: Float[Array | np.ndarray, "tokens dim"],
    old: tuple[int, int],
    new: tuple[int, int],
    method: Resize = "bilinear",
) -> Float[Array | np.ndarray, "resized dim"]:
    """Resize the grid of a position table as PyTorch's `interpolate` does (align_corners false).

    Args:
        table: first the class position, which is kept, then the grid positions, row by row.
        old, new: rows and columns.
        method: "bilinear", or "bicubic" with PyTorch's coefficient of -0.75; without antialiasing.
    """
    if old == new:
        return table
    grid = table[1:].reshape(*old, -1)
    vertical = interpolation_matrix(old[0], new[0], method)
    horizontal = interpolation_matrix(old[1], new[1], method)
    resized = jnp.einsum("ri,ijd,cj->rcd", vertical, grid, horizontal, precision="highest")
    return jnp.concatenate([table[:1], resized.reshape(-1, table.shape[1])])


def interpolation_matrix(old: int, new: int, method: Resize) -> Float[np.ndarray, "new old"]:
    """Weight of each old point in each new point, along one axis."""
    # Pixel centres are aligned: new i is at (i + 1/2)·old/new - 1/2.
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    if method == "bilinear":
        centres = np.clip(centres, 0, None)
        offsets = np.arange(2)
    else:
        offsets = np.arange(-1, 3)
    points = np.floor(centres).astype(int)[:, None] + offsets
    distance = np.abs(centres[:, None] - points)
    weights = 1 - distance if method == "bilinear" else _cubic(distance)
    matrix = np.zeros((new, old))
    # Points beyond the edge are clamped to it.
    rows = np.repeat(np.arange(new), len(offsets))
    np.add.at(matrix, (rows, np.clip(points, 0, old - 1).ravel()), weights.ravel())
    return matrix.astype(np.float32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution (Keys 1981) with PyTorch's coefficient of -0.75."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def normalize(
    images: UInt8[Array, "*batch height width 3"], mean: Channels, std: Channels
) -> Float[Array, "*batch height width 3"]:
    """Scale pixels from 0…255 to 0…1, subtract `mean` and divide by `std`, in float32.

    Args:
        images: pictures.
        mean, std: `pixel_mean` and `pixel_std` of the image tower's config.
    """
    offset, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return images.astype(jnp.float32) * (1 / (255 * scale)) - offset / scale
