"""Workarounds that a model needs on XLA's CPU backend; gains in docs/performance.md."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aima_jax.models.config import Dtype


def matmul(
    x: Float[Array, "*rows inputs"],
    kernel: Float[Array, "inputs outputs"],
    *,
    preferred_element_type: Dtype,
) -> Float[Array, "*rows outputs"]:
    """`jnp.matmul` as a product of two matrices.

    With more axes, XLA transposes the tokens' layout for the gradient of the kernel.
    On a TPU it is the other way round: flattening rows of 193 tokens changes the layout.
    """
    rows = x.reshape(-1, x.shape[-1])
    product = jnp.matmul(rows, kernel, preferred_element_type=preferred_element_type)
    return product.reshape(*x.shape[:-1], -1)


def checkpoint(
    function: Callable[..., Float[Array, "batch ..."]], *, policy: Callable[..., bool]
) -> Callable[..., Float[Array, "batch ..."]]:
    """A `jax.checkpoint` that XLA's CPU backend honours.

    The backend drops the barriers of `jax.checkpoint` early; CSE then merges the recomputation with
    the forward pass and keeps its results. Here the backward pass starts from arrays that depend on
    the gradient, so that nothing can be merged or computed early.

    Args:
        function: takes an array whose first axis is the batch, then parameters and lengths.
        policy: which results are kept, as in `jax.checkpoint`.
    """
    rematerialised = jax.checkpoint(function, policy=policy)

    def forward(x: Array, *others: Any) -> tuple[Array, Any]:
        result, pull_back = jax.vjp(rematerialised, x, *others)
        given = {id(leaf) for leaf in jax.tree.leaves(others)}
        kept = jax.tree.map(lambda leaf: leaf if id(leaf) in given else None, pull_back)
        computed = jax.tree.map(lambda leaf: None if id(leaf) in given else leaf, pull_back)
        return result, (kept, computed)

    def backward(residuals: Any, gradient: Array) -> tuple[Any, ...]:
        pull_back = jax.tree.map(
            lambda kept, computed: kept if computed is None else _later(computed, gradient),
            *residuals,
            is_leaf=lambda leaf: leaf is None,
        )
        return pull_back(gradient)

    checkpointed = jax.custom_vjp(function)
    checkpointed.defvjp(forward, backward)
    return checkpointed


def _later(x: Array, gradient: Array) -> Array:
    """x, as an array that for the compiler depends on the gradient.

    Each row of the batch depends on its own gradient, which is on the same device.
    """
    batch = len(gradient)
    nothing = 0 * gradient.reshape(batch, -1)[:, :1].astype(x.dtype)
    return (x.reshape(batch, -1) + nothing).reshape(x.shape)
