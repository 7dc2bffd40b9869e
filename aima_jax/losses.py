"""The five losses of AIMA, as pure functions of whole-batch arrays.

The loss names, their sum and the text–text alignment of A-IoU IMC are the paper's (arXiv
2406.03721); the formulas are those of IRRA (arXiv 2303.12501), on whose recipe AIMA builds, where a
docstring does not say otherwise.

Notation: batch of B pairs, temperature T, and for the L2-normalised rows r_i against columns c_j
p_ij = softmax_j(r_i·c_j / T), always handled as log p. Computation is in float32 at least; float64
stays float64. The three losses that compare all with all take `chunk_size`, the number of rows
compared at once: value and gradient are those of the whole, in memory linear in B, for one more
product of the features in the backward pass.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from aima_jax.attributes import attribute_iou


def info_nce(
    image_features: Float[Array, "batch dim"],
    text_features: Float[Array, "batch dim"],
    *,
    temperature: float | Float[Array, ""],
    labels: Int[Array, "batch"] | None = None,
    chunk_size: int | None = None,
) -> Float[Array, ""]:
    """InfoNCE: mean_i −Σ_j q_ij log p_ij, averaged over image→text and text→image.

    q is one on the diagonal. With `labels`, q_ij = y_ij / Σ_j y_ij for y_ij = [label_i = label_j]:
    all pairs of one label are positives, which is our decision and off by default.

    Raises ValueError where shapes disagree.
    """
    _check_shapes(
        image_features=(image_features, "batch dim"),
        text_features=(text_features, "batch dim"),
        **({} if labels is None else {"labels": (labels, "batch")}),
    )
    images, texts = _normalize(image_features), _normalize(text_features)
    labels = jnp.arange(len(images)) if labels is None else jnp.asarray(labels)

    def one_way(rows: Array, columns: Array) -> Array:
        def cross_entropy(rows: Array, row_labels: Array) -> Array:
            log_p = _log_softmax_similarity(rows, columns, temperature)
            q = _label_distribution(row_labels, labels, log_p.dtype)
            return -jnp.sum(q * log_p, axis=-1)

        return _mean_over_rows(cross_entropy, (rows, labels), chunk_size)

    return (one_way(images, texts) + one_way(texts, images)) / 2


def similarity_distribution_matching(
    image_features: Float[Array, "batch dim"],
    text_features: Float[Array, "batch dim"],
    labels: Int[Array, "batch"],
    *,
    temperature: float | Float[Array, ""],
    epsilon: float = 1e-8,
    chunk_size: int | None = None,
) -> Float[Array, ""]:
    """SDM: mean_i Σ_j p_ij (log p_ij − log(q_ij + ε)), image→text plus text→image.

    q_ij = y_ij / Σ_j y_ij for y_ij = [label_i = label_j], as in IRRA. The label is the
    person category, since PA-100K knows no identities.

    Raises ValueError where shapes disagree.
    """
    _check_shapes(
        image_features=(image_features, "batch dim"),
        text_features=(text_features, "batch dim"),
        labels=(labels, "batch"),
    )
    images, texts = _normalize(image_features), _normalize(text_features)
    labels = jnp.asarray(labels)

    def one_way(rows: Array, columns: Array) -> Array:
        def divergence(rows: Array, row_labels: Array) -> Array:
            log_p = _log_softmax_similarity(rows, columns, temperature)
            return _kl(log_p, _label_distribution(row_labels, labels, log_p.dtype), epsilon)

        return _mean_over_rows(divergence, (rows, labels), chunk_size)

    return one_way(images, texts) + one_way(texts, images)


def identity_loss(
    image_logits: Float[Array, "batch category"],
    text_logits: Float[Array, "batch category"],
    labels: Int[Array, "batch"],
) -> Float[Array, ""]:
    """ID: mean cross-entropy of the shared classifier's logits, averaged over image and text.

    Raises ValueError where shapes disagree. A label outside the categories gives NaN.
    """
    _check_shapes(
        image_logits=(image_logits, "batch category"),
        text_logits=(text_logits, "batch category"),
        labels=(labels, "batch"),
    )
    image_loss = jnp.mean(_cross_entropy(image_logits, labels))
    text_loss = jnp.mean(_cross_entropy(text_logits, labels))
    return (image_loss + text_loss) / 2


def masked_attribute_prediction(
    logits: Float[Array, "batch k vocabulary"],
    targets: Int[Array, "batch k"],
    mask: Bool[Array, "batch k"],
) -> Float[Array, ""]:
    """MAP: mean cross-entropy over the positions where `mask` is True; 0 where there are none.

    What stands at the other positions has no influence, on the gradient neither.

    Raises ValueError where shapes disagree.
    """
    _check_shapes(
        logits=(logits, "batch k vocabulary"),
        targets=(targets, "batch k"),
        mask=(mask, "batch k"),
    )
    mask = jnp.asarray(mask, bool)
    losses = _cross_entropy(jnp.where(mask[..., None], logits, 0), jnp.where(mask, targets, 0))
    return jnp.sum(losses, where=mask) / jnp.maximum(jnp.sum(mask), 1)


def attribute_iou_contrastive(
    text_features: Float[Array, "batch dim"],
    attributes: Shaped[Array, "batch attributes"],
    *,
    temperature: float | Float[Array, ""],
    target: str = "softmax",
    epsilon: float = 1e-8,
    chunk_size: int | None = None,
) -> Float[Array, ""]:
    """A-IoU IMC: mean_i Σ_j p_ij (log p_ij − log(q_ij + ε)), rows and columns both the texts.

    The diagonal takes part. IoU_ij = |S_i ∩ S_j| / |S_i ∪ S_j| over the sets of attributes that
    hold; two empty sets have 1.

    `target="softmax"`: q_ij = softmax_j(IoU_ij / T), whose optimum is cosine = IoU at any T.
    `target="normalized"`: q_ij = IoU_ij / Σ_j IoU_ij.
    That texts are aligned to the IoU distribution is the paper's; the form of q is not known, and
    both of these, like a temperature of its own, are our decision.

    Raises ValueError where shapes disagree or `target` is unknown.
    """
    _check_shapes(
        text_features=(text_features, "batch dim"), attributes=(attributes, "batch attributes")
    )
    if target not in ("softmax", "normalized"):
        raise ValueError(f"target is {target!r}; expected 'softmax' or 'normalized'")
    texts, attributes = _normalize(text_features), jnp.asarray(attributes)

    def divergence(rows: Array, row_attributes: Array) -> Array:
        log_p = _log_softmax_similarity(rows, texts, temperature)
        iou = attribute_iou(row_attributes, attributes).astype(log_p.dtype)
        if target == "softmax":
            q = jax.nn.softmax(iou / temperature, axis=-1)
        else:
            q = iou / jnp.sum(iou, axis=-1, keepdims=True)
        return _kl(log_p, q, epsilon)

    return _mean_over_rows(divergence, (texts, attributes), chunk_size)


def _normalize(features: Array) -> Array:
    """Scales rows to length 1; a zero row stays zero, with a finite gradient."""
    features = _widen(features)
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    return features / jnp.sqrt(jnp.where(squares > 0, squares, 1))


def _widen(x: Array) -> Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _log_softmax_similarity(rows: Array, columns: Array, temperature: float | Array) -> Array:
    # Full precision: accelerators' default products err by up to 0.2 in a cosine divided by 0.02.
    cosines = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.log_softmax(cosines / temperature, axis=-1)


def _label_distribution(row_labels: Array, labels: Array, dtype: jnp.dtype) -> Array:
    same = (row_labels[:, None] == labels[None, :]).astype(dtype)
    return same / jnp.sum(same, axis=-1, keepdims=True)


def _kl(log_p: Array, q: Array, epsilon: float) -> Array:
    return jnp.sum(jnp.exp(log_p) * (log_p - jnp.log(q + epsilon)), axis=-1)


def _cross_entropy(logits: Array, labels: Array) -> Array:
    logits = _widen(logits)
    picked = jnp.take_along_axis(logits, jnp.asarray(labels)[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def _mean_over_rows(
    row_losses: Callable[..., Array], rows: tuple[Array, ...], chunk_size: int | None
) -> Array:
    """Averages `row_losses(*rows)`, in chunks of rows that the backward pass computes again."""
    batch = len(rows[0])
    if chunk_size is None or chunk_size >= batch:
        return jnp.mean(row_losses(*rows))
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1, or None for no chunks")
    chunks = math.ceil(batch / chunk_size)

    def split(x: Array) -> Array:
        # Copies of the last row fill up. A chunk takes every `chunks`-th row, so that a batch split
        # over devices keeps all of them at work on each chunk.
        filled = jnp.pad(x, [(0, chunks * chunk_size - batch), *[(0, 0)] * (x.ndim - 1)], "edge")
        return filled.reshape(chunk_size, chunks, *x.shape[1:]).swapaxes(0, 1)

    remat = jax.checkpoint(lambda chunk: row_losses(*chunk))
    losses = jax.lax.map(remat, tuple(map(split, rows)))
    return jnp.mean(losses.T.reshape(-1)[:batch])


def _check_shapes(**arrays: tuple[Any, str]) -> None:
    """Raises ValueError unless each array has its axes, and axes of one name have one size."""
    sizes: dict[str, int] = {}
    for name, (array, axes) in arrays.items():
        shape, axes = jnp.shape(array), axes.split()
        expected = tuple(sizes.get(axis, size) for axis, size in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or shape != expected:
            wanted = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes)
            raise ValueError(f"{name} has shape {list(shape)}; expected [{wanted}]")
        sizes |= dict(zip(axes, shape, strict=True))
