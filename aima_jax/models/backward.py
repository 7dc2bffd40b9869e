"""Functions whose backward pass is not left to the compiler, to keep less memory or take less time.

XLA computes what a backward pass needs during the forward pass, however cheap it would be to
compute again, and keeps it until then.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aima_jax.platform import Platform

Function = TypeVar("Function", bound=Callable)


def _later(x: Array, gradient: Array) -> Array:
    """x, but for the compiler an array that cannot be known before the gradient is.

    What is computed from it is therefore neither computed early nor found to be known already.
    """
    return x + 0 * gradient.astype(x.dtype)


def computed_again(function: Function, platform: Platform | None) -> Function:
    """Of this function only the arguments are kept; its backward pass computes the rest again.

    On a CPU, that is: `jax.checkpoint` asks for the same, but XLA's CPU backend does not honour it.
    On accelerators, where it does and a model's `remat` is there to save memory, this is the
    function itself. Products whose results the backward pass does not need are not computed again.

    Args:
        function: of an array that all it computes depends on, then of other arrays, of modules or
            None; besides these it may know settings only. Its result, or the last one of a tuple,
            has the axes of the first argument but for the last axis.
    """

    if platform is None or platform.kind != "cpu":
        return function

    def forward(*arguments: Any) -> tuple[Any, tuple[Any, ...]]:
        return function(*arguments), arguments

    def backward(arguments: tuple[Any, ...], gradient: Any) -> tuple[Any, ...]:
        first, *others = arguments
        aligned = jax.tree.leaves(gradient)[-1][..., :1]
        _, derivative = jax.vjp(function, _later(first, aligned), *others)
        return derivative(gradient)

    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(forward, backward)
    return wrapped


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(
    rows: Float[Array, "rows inputs"], kernel: Float[Array, "inputs outputs"], dtype: str
) -> Float[Array, "rows outputs"]:
    """rows·kernel in a wider dtype than theirs; its gradient is rounded to their own.

    JAX would widen rows and kernel to the gradient's dtype, in which products are slow.
    """
    return jnp.matmul(rows, kernel, preferred_element_type=dtype)


def _matmul_backward(_: str, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    rows, kernel = kept
    gradient = gradient.astype(rows.dtype)
    return gradient @ kernel.T, rows.T @ gradient


matmul.defvjp(lambda *x: (matmul(*x), x[:2]), _matmul_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def add_bias(
    rows: Float[Array, "rows channels"],
    bias: Float[Array, "channels"],
    platform: Platform | None,
) -> Float[Array, "rows channels"]:
    """rows + bias; XLA's CPU backend sums 49,408 columns eighty times slower than this product."""
    return rows + bias


def _add_bias_backward(platform: Platform | None, _: None, gradient: Array) -> tuple[Array, Array]:
    if platform is not None and platform.kind == "cpu":
        return gradient, jnp.ones(len(gradient), gradient.dtype) @ gradient
    return gradient, jnp.sum(gradient, axis=0)


add_bias.defvjp(lambda rows, bias, platform: (rows + bias, None), _add_bias_backward)


@jax.custom_vjp
def layer_norm(
    rows: Float[Array, "rows channels"],
    scale: Float[Array, "channels"],
    bias: Float[Array, "channels"],
) -> Float[Array, "rows channels"]:
    """Rows of mean 0 and variance 1, then scaled and shifted; keeps the rows and their statistics.

    XLA would compute the statistics again. On a GPU it would then also multiply the gradient by the
    normalised rows in a pass of its own, in float32, before it sums the products.
    """
    return _layer_norm_forward(rows, scale, bias)[0]


def _layer_norm_forward(rows: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    centred = rows.astype(jnp.float32)
    mean = jnp.mean(centred, axis=-1, keepdims=True)
    centred -= mean
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-5)
    normalized = (centred * factor * scale + bias).astype(rows.dtype)
    # Behind the barrier XLA does not see what they were computed from.
    return normalized, (rows, *jax.lax.optimization_barrier((mean, factor)), scale)


def _layer_norm_backward(kept: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    rows, mean, factor, scale = kept
    gradient = gradient.astype(jnp.float32)
    unit = (rows.astype(jnp.float32) - mean) * factor
    by_scale, by_bias = jnp.sum(gradient * unit, axis=0), jnp.sum(gradient, axis=0)
    gradient *= scale
    along = jnp.mean(gradient * unit, axis=-1, keepdims=True)
    by_rows = factor * (gradient - jnp.mean(gradient, axis=-1, keepdims=True) - along * unit)
    return by_rows.astype(rows.dtype), by_scale, by_bias


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


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
