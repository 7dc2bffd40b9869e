"""Functions whose backward pass is not left to the compiler, to keep less memory or take less time.

XLA computes what a backward pass needs during the forward pass, however cheap it would be to
compute again, and keeps it until then.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def _later(x: Array, gradient: Array) -> Array:
    """x, but for the compiler an array that cannot be known before the gradient is.

    What is computed from it is therefore neither computed early nor found to be known already.
    """
    return x + 0 * gradient.astype(x.dtype)


def computed_again(function: Callable[..., Array]) -> Callable[..., Array]:
    """Of this function only the arguments are kept; its backward pass computes the rest again.

    `jax.checkpoint` asks for the same, but XLA's CPU backend does not honour it. The first argument
    and the result have the same axes but for the last.
    """

    def forward(*arguments: Array) -> tuple[Array, tuple[Array, ...]]:
        return function(*arguments), arguments

    def backward(arguments: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
        first, *others = arguments
        _, derivative = jax.vjp(function, _later(first, gradient[..., :1]), *others)
        return derivative(gradient)

    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(forward, backward)
    return functools.wraps(function)(wrapped)


def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x·sigmoid(1.702·x), as in CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


@computed_again
def quick_gelu_product(
    x: Float[Array, "rows inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "rows outputs"]:
    """quick_gelu(x)·kernel."""
    return quick_gelu(x) @ kernel


@computed_again
def layer_norm(
    x: Float[Array, "*rows channels"],
    scale: Float[Array, "channels"],
    bias: Float[Array, "channels"],
) -> Float[Array, "*rows channels"]:
    """Layer normalisation with statistics in float32 and CLIP's epsilon of 1e-5."""
    y = x.astype(jnp.float32)
    y -= jnp.mean(y, axis=-1, keepdims=True)
    y *= jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-5)
    return (y * scale + bias).astype(x.dtype)


def attend(
    query: Float[Array, "rows queries channels"],
    key: Float[Array, "rows keys channels"],
    value: Float[Array, "rows keys channels"],
    exists: Bool[Array, "#rows #queries keys"],
) -> Float[Array, "rows queries channels"]:
    """softmax(query·key)·value over the keys that exist."""
    scores = jnp.einsum("bqd,bkd->bqk", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores, where=exists, axis=-1)
    return jnp.einsum("bqk,bkd->bqd", weights.astype(value.dtype), value)


attend_again = computed_again(attend)


@jax.custom_vjp
def add_bias(
    rows: Float[Array, "rows channels"], bias: Float[Array, "channels"]
) -> Float[Array, "rows channels"]:
    """rows + bias; XLA's CPU backend sums 49,408 columns eighty times slower than this product."""
    return rows + bias


def _add_bias_backward(_: None, gradient: Array) -> tuple[Array, Array]:
    if jax.default_backend() == "cpu":
        return gradient, jnp.ones(len(gradient), gradient.dtype) @ gradient
    return gradient, jnp.sum(gradient, axis=0)


add_bias.defvjp(lambda rows, bias: (rows + bias, None), _add_bias_backward)


@jax.custom_vjp
def look_up(
    table: Float[Array, "words channels"], tokens: Int[Array, "batch tokens"]
) -> Float[Array, "batch tokens channels"]:
    """The table's row of each token; the zeros that its gradient starts from are made late."""
    return table[tokens]


def _look_up_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    table, tokens = kept
    return _later(jnp.zeros_like(table), gradient[0, 0]).at[tokens].add(gradient), None


look_up.defvjp(lambda table, tokens: (table[tokens], (table, tokens)), _look_up_backward)
