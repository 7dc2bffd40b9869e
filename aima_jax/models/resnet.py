"""CLIP's ModifiedResNet: a three-layer stem, pooling in place of strides, attention pooling."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aima_jax.models.attention import attention
from aima_jax.models.config import CLIPConfig, Dtype, ResNetConfig
from aima_jax.models.layers import Linear, normal, resize_positions
from aima_jax.parameters import Statistic
from aima_jax.platform import Platform

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ConvNorm(nnx.Module):
    """A convolution and a batch normalisation with frozen statistics from pretraining.

    Batch statistics (IRRA) would make a row's features depend on the other rows; freezing them is
    our decision.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        scale: float = 1.0,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.kernel = normal(rngs, (size, size, inputs, outputs), (2 / (inputs * size**2)) ** 0.5)
        self.scale = nnx.Param(jnp.full(outputs, scale))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.mean = Statistic(jnp.zeros(outputs))
        self.variance = Statistic(jnp.ones(outputs))
        self.stride = stride
        self.dtype = dtype

    def __call__(
        self, x: Float[Array, "batch rows columns inputs"]
    ) -> Float[Array, "batch rows_out columns_out outputs"]:
        factor = self.scale[...] * jax.lax.rsqrt(self.variance[...] + 1e-5)
        padding = self.kernel.shape[0] // 2
        y = jax.lax.conv_general_dilated(
            x,
            (self.kernel[...] * factor).astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=[(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + (self.bias[...] - self.mean[...] * factor).astype(self.dtype)


def pool(x: Float[Array, "batch rows columns channels"], stride: int) -> Array:
    """Means over squares of `stride` points; remainders at the edges are dropped."""
    return x if stride == 1 else nnx.avg_pool(x, (stride, stride), strides=(stride, stride))


class Bottleneck(nnx.Module):
    """A residual bottleneck that pools instead of striding."""

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: Dtype, rngs: nnx.Rngs):
        conv = partial(ConvNorm, dtype=dtype, rngs=rngs)
        self.conv1 = conv(inputs, width, 1)
        self.conv2 = conv(width, width, 3)
        self.conv3 = conv(width, 4 * width, 1, scale=0.0)
        changes = stride > 1 or inputs != 4 * width
        self.shortcut = conv(inputs, 4 * width, 1) if changes else None
        self.stride = stride

    def __call__(self, x: Float[Array, "batch rows columns inputs"]) -> Array:
        y = jax.nn.relu(self.conv1(x))
        y = pool(jax.nn.relu(self.conv2(y)), self.stride)
        if self.shortcut is not None:
            x = self.shortcut(pool(x, self.stride))
        return jax.nn.relu(x + self.conv3(y))


class AttentionPool(nnx.Module):
    """Attention between the feature map and its mean, projected to the joint space.

    CLIP itself uses only the mean as a query, which is token 0 here. Here the points of the map are
    queries too, so that the fusion module gets tokens in the same space (our decision).
    """

    def __init__(
        self,
        config: ResNetConfig,
        grid: tuple[int, int],
        dim: int,
        *,
        dtype: Dtype,
        rngs: nnx.Rngs,
        platform: Platform | None = None,
    ):
        channels, std = config.channels, config.channels**-0.5
        linear = partial(Linear, channels, std=std, dtype=dtype, rngs=rngs, platform=platform)
        self.position_embedding = normal(rngs, (1 + grid[0] * grid[1], channels), std)
        self.query = linear(channels)
        self.key = linear(channels)
        self.value = linear(channels)
        self.out = linear(dim)
        self.heads = config.heads
        self.grid = grid
        self.platform = platform

    def __call__(
        self, x: Float[Array, "batch rows columns channels"], first: int | None = None
    ) -> Float[Array, "batch first dim"]:
        batch, rows, columns, channels = x.shape
        positions = resize_positions(self.position_embedding[...], self.grid, (rows, columns))
        points = x.reshape(batch, -1, channels)
        tokens = jnp.concatenate([jnp.mean(points, axis=1, keepdims=True), points], axis=1)
        tokens += positions.astype(tokens.dtype)

        def split(tokens: Array) -> Array:
            return tokens.reshape(*tokens.shape[:2], self.heads, -1)

        query = split(self.query(tokens[:, :first]))
        key, value = split(self.key(tokens)), split(self.value(tokens))
        mixed = attention(query, key, value, platform=self.platform)
        return self.out(mixed.reshape(batch, -1, channels))


class ModifiedResNet(nnx.Module):
    """CLIP's convolutional image tower; its first token is the pooled feature."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs, platform: Platform | None = None):
        vision, dtype = config.vision, config.dtype
        assert isinstance(vision, ResNetConfig)
        conv = partial(ConvNorm, dtype=dtype, rngs=rngs)
        width = vision.width
        self.conv1 = conv(3, width // 2, 3, stride=2)
        self.conv2 = conv(width // 2, width // 2, 3)
        self.conv3 = conv(width // 2, width, 3)
        inputs = width
        for stage, (name, depth) in enumerate(zip(STAGES, vision.layers, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if stage and not block else 1
                planes = width * 2**stage
                blocks.append(Bottleneck(inputs, planes, stride, dtype=dtype, rngs=rngs))
                inputs = 4 * planes
            setattr(self, name, nnx.List(blocks))
        options = {"dtype": dtype, "rngs": rngs, "platform": platform}
        self.attention_pool = AttentionPool(
            vision, vision.grid(config.image_size), config.dim, **options
        )
        self.dtype = dtype

    def stem(self, images: Float[Array, "batch height width 3"]) -> Array:
        """The feature map before the first stage."""
        x = images.astype(self.dtype)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = jax.nn.relu(conv(x))
        return pool(x, 2)

    def __call__(
        self, images: Float[Array, "batch height width 3"], first: int | None = None
    ) -> Float[Array, "batch first dim"]:
        x = self.stem(images)
        for name in STAGES:
            for block in getattr(self, name):
                x = block(x)
        return self.attention_pool(x, first)
