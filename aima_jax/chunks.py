"""Means over rows that each compare themselves with the whole batch, whole or in chunks of rows.

In chunks the value and the gradient are the same, the memory is linear in the batch instead of
square.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

Scalar = Float[Array, ""]
Constants = tuple[Num[Array, "batch ..."], ...]  # what no gradient is wanted of, as labels
Operands = tuple[tuple[Float[Array, "batch dim"], ...], Constants]  # features and constants
# Of some rows, given those, all rows, and the temperature.
RowLosses = Callable[[Operands, Operands, Scalar], Float[Array, "rows"]]


def mean_over_rows(
    row_losses: RowLosses,
    features: tuple[Float[Array, "batch dim"], ...],
    constants: Constants,
    *,
    temperature: float | Scalar,
    chunk_size: int | None,
) -> Scalar:
    """Mean of a loss that each row has in comparison with all rows.

    Args:
        row_losses: the loss of each of some rows, given those, all rows, and the temperature.
        features, constants: arrays whose first axis is the batch.
        temperature: handed to `row_losses`.
        chunk_size: rows compared with all at once; None: all.

    Raises:
        ValueError: `chunk_size` is below 1.
    """
    constants = tuple(jnp.asarray(x) for x in constants)
    temperature = jnp.asarray(temperature, features[0].dtype)
    if chunk_size is None:
        everything = features, constants
        return jnp.mean(row_losses(everything, everything, temperature))
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1, or None for no chunks")
    chunk_size = min(chunk_size, len(features[0]))
    return _mean_over_chunks(row_losses, chunk_size, features, constants, temperature)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mean_over_chunks(
    row_losses: RowLosses,
    chunk_size: int,
    features: tuple[Array, ...],
    constants: Constants,
    temperature: Scalar,
) -> Scalar:
    return _value_and_gradient(row_losses, chunk_size, features, constants, temperature)[0]


def _value_and_gradient(
    row_losses: RowLosses,
    chunk_size: int,
    features: tuple[Array, ...],
    constants: Constants,
    temperature: Scalar,
) -> tuple[Scalar, tuple[tuple[Array, ...], Scalar]]:
    """The mean loss and its gradient by features and temperature, summed chunk by chunk.

    A chunk's gradient is taken while its rows are at hand, so nothing waits for a backward pass.
    """
    batch = len(features[0])
    chunks = math.ceil(batch / chunk_size)

    def rows_of(chunk: Array, x: Array) -> Array:
        # Every `chunks`-th row, so that a batch split over devices occupies all of them with each
        # chunk. Copies of the first rows fill up.
        filled = jnp.concatenate([x, x[: chunks * chunk_size - batch]])
        by_chunk = filled.reshape(chunk_size, chunks, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(by_chunk, chunk, axis=1, keepdims=False)

    def chunk_loss(by: tuple[tuple[Array, ...], Scalar], chunk: Array) -> Array:
        features, temperature = by
        everything = features, constants
        rows = jax.tree.map(functools.partial(rows_of, chunk), everything)
        counts = jnp.arange(chunk_size) * chunks + chunk < batch
        return jnp.sum(row_losses(rows, everything, temperature), where=counts) / batch

    def add_chunk(total: Any, chunk: Array) -> tuple[Any, None]:
        by = features, temperature
        return jax.tree.map(jnp.add, total, jax.value_and_grad(chunk_loss)(by, chunk)), None

    nothing = jax.tree.map(jnp.zeros_like, (temperature, (features, temperature)))
    return jax.lax.scan(add_chunk, nothing, jnp.arange(chunks))[0]


def _backward(
    row_losses: RowLosses,
    chunk_size: int,
    gradient: tuple[tuple[Array, ...], Scalar],
    cotangent: Scalar,
) -> tuple[tuple[Array, ...], None, Scalar]:
    by_features, by_temperature = jax.tree.map(lambda g: cotangent * g, gradient)
    return by_features, None, by_temperature


_mean_over_chunks.defvjp(_value_and_gradient, _backward)
