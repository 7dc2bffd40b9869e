"""Common parts of the all-pairs losses: targets, and means in chunks.

A whole sentence is true of the images of its category. A partial one is true of an image unless the
image contradicts it: a_ij, the agreement of image i with sentence j. [ours]

With chunks of rows, value and gradient are the same, and memory is linear in the batch instead of
quadratic.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Shaped

from aima_jax.attributes import agreement

AnyArray = Array | np.ndarray
Scalar = Float[Array, ""]
# Some rows or all: features, and inputs without a gradient, such as labels.
Constants = tuple[Shaped[Array, "_rows ..."], ...]
Operands = tuple[tuple[Float[Array, "_rows dim"], ...], Constants]
# The losses of some rows, given these, all rows, and the temperature.
RowLosses = Callable[[Operands, Operands, Scalar], Float[Array, "rows"]]


def mean_over_rows(
    row_losses: RowLosses,
    features: tuple[Float[Array, "batch dim"], ...],
    constants: tuple[Shaped[AnyArray, "batch ..."], ...],
    *,
    temperature: float | Scalar,
    chunk_size: int | None,
) -> Scalar:
    """Mean over rows of a loss that compares each row with all rows.

    Args:
        row_losses: the losses of some rows, given these, all rows, and the temperature.
        features, constants: arrays whose first axis is the batch.
        temperature: passed to `row_losses`.
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

    A chunk's gradient is computed with its loss, so nothing is stored for a backward pass.
    """
    batch = len(features[0])
    chunks = math.ceil(batch / chunk_size)

    def rows_of(chunk: Array, x: Array) -> Array:
        # Every `chunks`-th row, so that each chunk of a sharded batch uses all devices. The last
        # chunk is padded with copies of the first rows.
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


# For each item: the image's bits, the sentence's statement about each bit, whether it is whole.
Said = tuple[
    Shaped[AnyArray, "batch attributes"],
    Int8[AnyArray, "batch attributes"],
    Bool[AnyArray, "batch"],
]


def target_inputs(
    labels: Int[AnyArray, "batch"], said: Said | None, *, chunk_size: int | None = None
) -> Constants:
    """The inputs of `targets` for each item of a batch.

    With `said`, they include n_j = Σ_i a_ij, the number of images that sentence j is true of,
    computed for `chunk_size` sentences at once if given.
    """
    labels = jnp.asarray(labels)
    if said is None:
        return (labels,)
    attributes, says, whole = map(jnp.asarray, said)

    def count(sentence: tuple[Array, Array, Array]) -> Array:
        sentences = jax.tree.map(lambda x: x[None], sentence)
        return jnp.sum(_agrees((labels, attributes), sentences))

    sentences = labels, says, whole
    if chunk_size is None:
        counts = jax.vmap(count)(sentences)
    else:
        counts = jax.lax.map(count, sentences, batch_size=max(1, min(chunk_size, len(labels))))
    return labels, attributes, says, whole, counts


def targets(
    rows: Operands, everything: Operands, *, image_target: str = "joint"
) -> tuple[Float[Array, "rows batch"], Float[Array, "rows batch"]]:
    """q of each row over the whole batch, image→text and text→image.

    By labels alone, both are y_ij / Σ_j y_ij for y_ij = [label_i = label_j]. By agreement, they are
    the conditionals of one joint, P_ij = a_ij / n_j: a sentence that is true of many images has
    less weight than one that is true of few. Text→image is q(i|j) = P_ij, image→text is
    q(j|i) = P_ij / Σ_j P_ij, or a_ij / Σ_j a_ij with `image_target="uniform"`.

    Args:
        rows, everything: some of the rows and the whole batch, with constants from `target_inputs`.
    """
    (features, *_), constants = rows
    _, all_constants = everything
    if len(constants) == 1:
        same = (constants[0][:, None] == all_constants[0][None, :]).astype(features.dtype)
        q = same / jnp.sum(same, axis=-1, keepdims=True)
        return q, q
    labels, attributes, said, whole, counts = constants
    all_labels, all_attributes, all_said, all_whole, all_counts = all_constants
    of_images = _agrees((labels, attributes), (all_labels, all_said, all_whole))
    of_texts = _agrees((all_labels, all_attributes), (labels, said, whole)).T
    weights = of_images.astype(features.dtype)
    if image_target == "joint":
        weights /= all_counts[None, :]
    image_to_text = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return image_to_text, of_texts.astype(features.dtype) / counts[:, None]


def statements(
    attributes: Shaped[AnyArray, "batch attributes"],
    said: Int8[AnyArray, "batch attributes"],
    whole: Bool[AnyArray, "batch"],
    presences: Bool[AnyArray, "batch attributes"] | None = None,
) -> Bool[Array, "batch statements"]:
    """Statements of each sentence as a set of (bit, sign): presences, then absences.

    A whole sentence states the attributes of its category, whatever its words. Bits that state an
    absence, all but `presences`, are left out.
    """
    whole = jnp.asarray(whole)[:, None]
    counted = True if presences is None else jnp.asarray(presences)
    holds = jnp.where(whole, jnp.asarray(attributes) != 0, said == 1)
    return jnp.concatenate([holds & counted, (said == -1) & ~whole & counted], axis=1)


def _agrees(
    images: tuple[Array, Array], sentences: tuple[Array, Array, Array]
) -> Bool[Array, "images sentences"]:
    """a_ij, from labels and bits of images, and labels, statements and `whole` of sentences."""
    labels, attributes = images
    sentence_labels, said, whole = sentences
    same = labels[:, None] == sentence_labels[None, :]
    return jnp.where(whole[None, :], same, agreement(attributes, said))


def mean_both_ways(
    row_loss: Callable[[Array, Array], Array],
    image_features: AnyArray,
    text_features: AnyArray,
    labels: AnyArray,
    said: Said | None,
    temperature: float | Scalar,
    *,
    image_target: str,
    chunk_size: int | None,
) -> Scalar:
    """Mean over rows of a loss of (log p, q), image→text plus text→image."""
    axes = {"attributes": "batch attributes", "said": "batch attributes", "whole": "batch"}
    check_shapes(
        image_features=(image_features, "batch dim"),
        text_features=(text_features, "batch dim"),
        labels=(labels, "batch"),
        **{name: (x, axes[name]) for name, x in zip(axes, said or (), strict=False)},
    )
    if image_target not in ("joint", "uniform"):
        raise ValueError(f"image_target is {image_target!r}; expected 'joint' or 'uniform'")

    def row_losses(rows: Operands, everything: Operands, temperature: Scalar) -> Array:
        (images, texts), (all_images, all_texts) = rows[0], everything[0]
        image_q, text_q = targets(rows, everything, image_target=image_target)
        image_to_text = row_loss(log_p_of(images, all_texts, temperature), image_q)
        return image_to_text + row_loss(log_p_of(texts, all_images, temperature), text_q)

    features = normalize_rows(image_features), normalize_rows(text_features)
    constants = target_inputs(labels, said, chunk_size=chunk_size)
    return mean_over_rows(
        row_losses, features, constants, temperature=temperature, chunk_size=chunk_size
    )


def normalize_rows(features: AnyArray) -> Array:
    """Scale rows to length 1; a zero row stays zero, with a finite gradient."""
    features = widen(features)
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    return features / jnp.sqrt(jnp.where(squares > 0, squares, 1))


def widen(x: AnyArray) -> Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def log_p_of(rows: Array, columns: Array, temperature: Scalar) -> Array:
    # With an accelerator's default precision, a cosine divided by 0.02 is off by up to 0.2.
    cosines = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.log_softmax(cosines / temperature, axis=-1)


def kl(log_p: Array, q: Array, epsilon: float) -> Array:
    return jnp.sum(jnp.exp(log_p) * (log_p - jnp.log(q + epsilon)), axis=-1)


def check_shapes(**arrays: tuple[Any, str]) -> None:
    """Raise ValueError unless each array has its axes, and axes of one name have one size."""
    sizes: dict[str, int] = {}
    for name, (array, axes) in arrays.items():
        shape, axes = jnp.shape(array), axes.split()
        expected = tuple(sizes.get(axis, size) for axis, size in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or shape != expected:
            wanted = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes)
            raise ValueError(f"{name} has shape {list(shape)}; expected [{wanted}]")
        sizes |= dict(zip(axes, shape, strict=True))
