"""The five losses of AIMA, as pure functions of whole-batch arrays.

The names of the losses, their sum, and that A-IoU IMC aligns texts with texts are the paper's
(arXiv 2406.03721). The formulas are those of IRRA (arXiv 2303.12501), on whose recipe AIMA builds,
where a docstring does not say otherwise.

Notation: rows r_i and columns c_j are L2-normalised features, T is the temperature, and
p_ij = softmax_j(r_i·c_j / T), handled as log p throughout. Features may come un-normalised.
Computation is in float32 at least; float64 stays float64.

The three losses that compare all items with all take `chunk_size`, the number of rows compared at
once: the value and the gradient are the same, the memory is linear in the batch instead of square.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from aima_jax.attributes import attribute_iou

Scalar = Float[Array, ""]
Rows = tuple[Array, ...]  # features, and last the labels or attributes; "batch" is the first axis
RowLosses = Callable[[Rows, Rows, Scalar], Float[Array, "rows"]]  # (rows, whole batch, temperature)


def info_nce(
    image_features: Float[Array, "batch dim"],
    text_features: Float[Array, "batch dim"],
    *,
    temperature: float | Scalar,
    labels: Int[Array, "batch"] | None = None,
    chunk_size: int | None = None,
) -> Scalar:
    """InfoNCE: mean_i −Σ_j q_ij log p_ij, averaged over image→text and text→image.

    q is one on the diagonal. With `labels`, q_ij = y_ij / Σ_j y_ij for y_ij = [label_i = label_j]:
    all pairs of one label are positives, which is our decision and off by default.

    Raises ValueError where shapes disagree.
    """
    _check_shapes(image_features=(image_features, "batch dim"))
    if labels is None:
        labels = jnp.arange(len(image_features))
    _check_pairs(image_features, text_features, labels)

    def row_losses(rows: Rows, whole: Rows, temperature: Scalar) -> Array:
        q = _same_label(rows, whole)
        image_to_text, text_to_image = _log_p_both_ways(rows, whole, temperature)
        return -jnp.sum(q * (image_to_text + text_to_image) / 2, axis=-1)

    features = _normalize(image_features), _normalize(text_features)
    return _mean_over_rows(row_losses, features, labels, temperature, chunk_size)


def similarity_distribution_matching(
    image_features: Float[Array, "batch dim"],
    text_features: Float[Array, "batch dim"],
    labels: Int[Array, "batch"],
    *,
    temperature: float | Scalar,
    epsilon: float = 1e-8,
    chunk_size: int | None = None,
) -> Scalar:
    """SDM: mean_i Σ_j p_ij (log p_ij − log(q_ij + ε)), image→text plus text→image.

    q_ij = y_ij / Σ_j y_ij for y_ij = [label_i = label_j], as in IRRA. The label is the person
    category, since PA-100K knows no identities.

    Raises ValueError where shapes disagree.
    """
    _check_pairs(image_features, text_features, labels)

    def row_losses(rows: Rows, whole: Rows, temperature: Scalar) -> Array:
        q = _same_label(rows, whole)
        image_to_text, text_to_image = _log_p_both_ways(rows, whole, temperature)
        return _kl(image_to_text, q, epsilon) + _kl(text_to_image, q, epsilon)

    features = _normalize(image_features), _normalize(text_features)
    return _mean_over_rows(row_losses, features, labels, temperature, chunk_size)


def identity_loss(
    image_logits: Float[Array, "batch category"],
    text_logits: Float[Array, "batch category"],
    labels: Int[Array, "batch"],
) -> Scalar:
    """ID: mean cross-entropy of the shared classifier's logits, averaged over image and text.

    Raises ValueError where shapes disagree. A label beyond the categories gives NaN.
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
) -> Scalar:
    """MAP: mean cross-entropy over the positions where `mask` is True; 0 where there are none.

    Targets at the other positions may be anything.

    Raises ValueError where shapes disagree.
    """
    _check_shapes(
        logits=(logits, "batch k vocabulary"),
        targets=(targets, "batch k"),
        mask=(mask, "batch k"),
    )
    mask = jnp.asarray(mask, bool)
    losses = _cross_entropy(logits, jnp.where(mask, targets, 0))
    return jnp.sum(losses, where=mask) / jnp.maximum(jnp.sum(mask), 1)


def attribute_iou_contrastive(
    text_features: Float[Array, "batch dim"],
    attributes: Shaped[Array, "batch attributes"],
    *,
    temperature: float | Scalar,
    target: str = "softmax",
    epsilon: float = 1e-8,
    chunk_size: int | None = None,
) -> Scalar:
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

    def row_losses(rows: Rows, whole: Rows, temperature: Scalar) -> Array:
        log_p = _log_p(rows[0], whole[0], temperature)
        iou = attribute_iou(rows[1], whole[1]).astype(log_p.dtype)
        if target == "softmax":
            q = jax.nn.softmax(iou / temperature, axis=-1)
        else:
            q = iou / jnp.sum(iou, axis=-1, keepdims=True)
        return _kl(log_p, q, epsilon)

    features = (_normalize(text_features),)
    return _mean_over_rows(row_losses, features, attributes, temperature, chunk_size)


def _normalize(features: Array) -> Array:
    """Scales rows to length 1; a zero row stays zero, with a finite gradient."""
    features = _widen(features)
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    return features / jnp.sqrt(jnp.where(squares > 0, squares, 1))


def _widen(x: Array) -> Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _log_p(rows: Array, columns: Array, temperature: Scalar) -> Array:
    # An accelerator's default product errs by up to 0.2 in a cosine divided by 0.02.
    cosines = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.log_softmax(cosines / temperature, axis=-1)


def _log_p_both_ways(rows: Rows, whole: Rows, temperature: Scalar) -> tuple[Array, Array]:
    images, texts, _ = rows
    all_images, all_texts, _ = whole
    return _log_p(images, all_texts, temperature), _log_p(texts, all_images, temperature)


def _same_label(rows: Rows, whole: Rows) -> Array:
    same = (rows[-1][:, None] == whole[-1][None, :]).astype(rows[0].dtype)
    return same / jnp.sum(same, axis=-1, keepdims=True)


def _kl(log_p: Array, q: Array, epsilon: float) -> Array:
    return jnp.sum(jnp.exp(log_p) * (log_p - jnp.log(q + epsilon)), axis=-1)


def _cross_entropy(logits: Array, labels: Array) -> Array:
    logits = _widen(logits)
    picked = jnp.take_along_axis(logits, jnp.asarray(labels)[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def _mean_over_rows(
    row_losses: RowLosses,
    features: Rows,
    labels: Array,
    temperature: float | Scalar,
    chunk_size: int | None,
) -> Scalar:
    labels, temperature = jnp.asarray(labels), jnp.asarray(temperature, features[0].dtype)
    if chunk_size is None:
        whole = (*features, labels)
        return jnp.mean(row_losses(whole, whole, temperature))
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1, or None for no chunks")
    chunk_size = min(chunk_size, len(labels))
    return _mean_over_chunks(row_losses, chunk_size, features, labels, temperature)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mean_over_chunks(
    row_losses: RowLosses, chunk_size: int, features: Rows, labels: Array, temperature: Scalar
) -> Scalar:
    return _chunked_value_and_gradient(row_losses, chunk_size, features, labels, temperature)[0]


def _chunked_value_and_gradient(
    row_losses: RowLosses, chunk_size: int, features: Rows, labels: Array, temperature: Scalar
) -> tuple[Scalar, tuple[Rows, Scalar]]:
    """The mean loss and its gradient by features and temperature, summed chunk by chunk.

    A chunk's gradient is taken while its rows are at hand, so nothing waits for a backward pass.
    """
    batch = len(labels)
    chunks = math.ceil(batch / chunk_size)

    def rows_of(chunk: Array, x: Array) -> Array:
        # Every `chunks`-th row, so that a batch split over devices occupies all of them with each
        # chunk. Copies of the first rows fill up.
        filled = jnp.concatenate([x, x[: chunks * chunk_size - batch]])
        by_chunk = filled.reshape(chunk_size, chunks, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(by_chunk, chunk, axis=1, keepdims=False)

    def chunk_loss(by: tuple[Rows, Scalar], chunk: Array) -> Array:
        features, temperature = by
        whole = (*features, labels)
        rows = tuple(rows_of(chunk, x) for x in whole)
        counts = jnp.arange(chunk_size) * chunks + chunk < batch
        return jnp.sum(row_losses(rows, whole, temperature), where=counts) / batch

    def add_chunk(total: Any, chunk: Array) -> tuple[Any, None]:
        by = features, temperature
        return jax.tree.map(jnp.add, total, jax.value_and_grad(chunk_loss)(by, chunk)), None

    nothing = jax.tree.map(jnp.zeros_like, (temperature, (features, temperature)))
    return jax.lax.scan(add_chunk, nothing, jnp.arange(chunks))[0]


def _backward(
    row_losses: RowLosses, chunk_size: int, gradient: tuple[Rows, Scalar], cotangent: Scalar
) -> tuple[Rows, None, Scalar]:
    by_features, by_temperature = jax.tree.map(lambda g: cotangent * g, gradient)
    return by_features, None, by_temperature


_mean_over_chunks.defvjp(_chunked_value_and_gradient, _backward)


def _check_pairs(image_features: Array, text_features: Array, labels: Array) -> None:
    _check_shapes(
        image_features=(image_features, "batch dim"),
        text_features=(text_features, "batch dim"),
        labels=(labels, "batch"),
    )


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
