"""The losses: pure functions of whole-batch arrays, and `LOSSES`, the table of them.

The names of the five losses, their sum, and the alignment of texts with texts in A-IoU IMC are from
the paper (arXiv 2406.03721). The formulas are from IRRA (arXiv 2303.12501), whose recipe AIMA
builds on, unless a docstring says otherwise.

Notation: rows r_i and columns c_j are L2-normalised features, T is the temperature, and
p_ij = softmax_j(r_i·c_j / T), computed as log p throughout. Input features need not be normalised.
Computation is in at least float32; float64 stays float64.

The three all-pairs losses take `chunk_size`, the number of rows compared at once: value and
gradient are the same, and memory is linear in the batch instead of quadratic.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, Shaped

from aima_jax.attributes import attribute_iou
from aima_jax.pairs import (
    AnyArray,
    Operands,
    Said,
    Scalar,
    check_shapes,
    kl,
    log_p_of,
    mean_both_ways,
    mean_over_rows,
    normalize_rows,
    statements,
    widen,
)


def info_nce(
    image_features: Float[AnyArray, "batch dim"],
    text_features: Float[AnyArray, "batch dim"],
    *,
    temperature: float | Scalar,
    labels: Int[AnyArray, "batch"] | None = None,
    said: Said | None = None,
    image_target: str = "joint",
    chunk_size: int | None = None,
) -> Scalar:
    """InfoNCE: mean_i −Σ_j q_ij log p_ij, averaged over image→text and text→image.

    q is one on the diagonal. With `labels`, q_ij = y_ij / Σ_j y_ij for y_ij = [label_i = label_j]:
    all pairs with equal labels are positives, which is our decision and off by default. If `said`
    is given too, (image attributes, said, whole) of each item, q is by agreement: see `targets`.

    Raises:
        ValueError: shapes disagree, `said` is given without labels, or `image_target` is neither
            "joint" nor "uniform".
    """
    check_shapes(image_features=(image_features, "batch dim"))
    if labels is None:
        if said is not None:
            raise ValueError("said is given without labels; expected both, or neither")
        labels = jnp.arange(len(image_features))

    def cross_entropy(log_p: Array, q: Array) -> Array:
        return -jnp.sum(q * log_p, axis=-1) / 2

    features = image_features, text_features
    options = {"image_target": image_target, "chunk_size": chunk_size}
    return mean_both_ways(cross_entropy, *features, labels, said, temperature, **options)


def similarity_distribution_matching(
    image_features: Float[AnyArray, "batch dim"],
    text_features: Float[AnyArray, "batch dim"],
    labels: Int[AnyArray, "batch"],
    *,
    temperature: float | Scalar,
    epsilon: float = 1e-8,
    said: Said | None = None,
    image_target: str = "joint",
    chunk_size: int | None = None,
) -> Scalar:
    """SDM: mean_i Σ_j p_ij (log p_ij − log(q_ij + ε)), image→text plus text→image.

    q_ij = y_ij / Σ_j y_ij for y_ij = [label_i = label_j], as in IRRA. The label is the person
    category, since PA-100K has no identities. With `said`, (image attributes, said, whole) of each
    item, q is by agreement: see `targets`, which is our decision.

    Raises:
        ValueError: shapes disagree, or `image_target` is neither "joint" nor "uniform".
    """
    divergence, features = partial(kl, epsilon=epsilon), (image_features, text_features)
    options = {"image_target": image_target, "chunk_size": chunk_size}
    return mean_both_ways(divergence, *features, labels, said, temperature, **options)


def identity_loss(
    image_logits: Float[AnyArray, "batch category"],
    text_logits: Float[AnyArray, "batch category"],
    labels: Int[AnyArray, "batch"],
    *,
    text_mask: Bool[AnyArray, "batch"] | None = None,
) -> Scalar:
    """ID: mean cross-entropy of the shared classifier's logits, averaged over image and text.

    With `text_mask`, the mean over texts includes only those where it is True; 0 if there are none.
    A partial sentence does not determine a category. A label out of range gives NaN.

    Raises:
        ValueError: shapes disagree.
    """
    check_shapes(
        image_logits=(image_logits, "batch category"),
        text_logits=(text_logits, "batch category"),
        labels=(labels, "batch"),
    )
    image_loss = jnp.mean(_cross_entropy(image_logits, labels))
    text_losses = _cross_entropy(text_logits, labels)
    if text_mask is None:
        text_loss = jnp.mean(text_losses)
    else:
        check_shapes(labels=(labels, "batch"), text_mask=(text_mask, "batch"))
        text_mask = jnp.asarray(text_mask, bool)
        text_loss = jnp.sum(text_losses, where=text_mask) / jnp.maximum(jnp.sum(text_mask), 1)
    return (image_loss + text_loss) / 2


def masked_attribute_prediction(
    logits: Float[AnyArray, "batch k vocabulary"],
    targets: Int[AnyArray, "batch k"],
    mask: Bool[AnyArray, "batch k"],
    count: Scalar | None = None,
) -> Scalar:
    """MAP: mean cross-entropy over the positions where `mask` is True; 0 if there are none.

    Targets at other positions are ignored. `count` is the number of masked positions in a larger
    batch that contains these rows; the result is then their share of that batch's mean.

    Raises:
        ValueError: shapes disagree.
    """
    check_shapes(
        logits=(logits, "batch k vocabulary"),
        targets=(targets, "batch k"),
        mask=(mask, "batch k"),
    )
    mask = jnp.asarray(mask, bool)
    losses = _cross_entropy(logits, jnp.where(mask, targets, 0))
    return jnp.sum(losses, where=mask) / jnp.maximum(jnp.sum(mask) if count is None else count, 1)


def attribute_iou_contrastive(
    text_features: Float[AnyArray, "batch dim"],
    attributes: Shaped[AnyArray, "batch attributes"],
    *,
    temperature: float | Scalar,
    target: str = "softmax",
    epsilon: float = 1e-8,
    chunk_size: int | None = None,
) -> Scalar:
    """A-IoU IMC: mean_i Σ_j p_ij (log p_ij − log(q_ij + ε)), rows and columns both the texts.

    The diagonal is included. IoU_ij = |S_i ∩ S_j| / |S_i ∪ S_j| over the sets of attributes
    present; 1 for two empty sets.

    `target="softmax"`: q_ij = softmax_j(IoU_ij / T), whose optimum is cosine = IoU at any T.
    `target="normalized"`: q_ij = IoU_ij / Σ_j IoU_ij.
    Aligning texts to the IoU distribution is from the paper; the form of q is not known, and both
    of these, like the separate temperature, are our decision.

    Raises:
        ValueError: shapes disagree, or `target` is unknown.
    """
    check_shapes(
        text_features=(text_features, "batch dim"), attributes=(attributes, "batch attributes")
    )
    if target not in ("softmax", "normalized"):
        raise ValueError(f"target is {target!r}; expected 'softmax' or 'normalized'")

    def row_losses(rows: Operands, everything: Operands, temperature: Scalar) -> Array:
        (texts,), (attributes,) = rows
        (all_texts,), (all_attributes,) = everything
        log_p = log_p_of(texts, all_texts, temperature)
        iou = attribute_iou(attributes, all_attributes).astype(log_p.dtype)
        if target == "softmax":
            q = jax.nn.softmax(iou / temperature, axis=-1)
        else:
            q = iou / jnp.sum(iou, axis=-1, keepdims=True)
        return kl(log_p, q, epsilon)

    features = (normalize_rows(text_features),)
    return mean_over_rows(
        row_losses, features, (attributes,), temperature=temperature, chunk_size=chunk_size
    )


def _cross_entropy(logits: AnyArray, labels: AnyArray) -> Array:
    logits = widen(logits)
    picked = jnp.take_along_axis(logits, jnp.asarray(labels)[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


class Masked(NamedTuple):
    """The MAP head's predictions at the masked positions of some rows.

    `total` is the number of masked positions in the whole batch, of which these rows may be a part.
    """

    logits: Float[AnyArray, "batch k vocabulary"]
    targets: Int[AnyArray, "batch k"]
    mask: Bool[AnyArray, "batch k"]
    total: Scalar


@dataclass(frozen=True)
class LossBatch:
    """The inputs of the losses; inputs that no loss needs are None.

    Features are not normalised. `category` numbers distinct attribute vectors, the `attributes` of
    the images; `presences` are the bits that state a presence, by default all. `said` is a row's
    sentence's statement about each bit: 1 present, -1 absent, 0 none; `whole`, whether it states
    everything. `partial_said` and `partial_text_features` are from another, partial sentence.
    """

    category: Int[AnyArray, "batch"]
    attributes: Shaped[AnyArray, "batch attributes"]
    said: Int8[AnyArray, "batch attributes"]
    whole: Bool[AnyArray, "batch"]
    image_features: Float[AnyArray, "batch dim"] | None = None
    text_features: Float[AnyArray, "batch dim"] | None = None
    image_logits: Float[AnyArray, "batch category"] | None = None
    text_logits: Float[AnyArray, "batch category"] | None = None
    masked: Masked | None = None
    partial_text_features: Float[AnyArray, "batch dim"] | None = None
    partial_said: Int8[AnyArray, "batch attributes"] | None = None
    presences: Bool[AnyArray, "batch attributes"] | None = None

    def read(self, *fields: str) -> tuple[Any, ...]:
        """Return fields that a loss needs, asserting that none is None."""
        return tuple(getattr(self, field) for field in fields)


@dataclass(frozen=True)
class Loss:
    """An entry of `LOSSES`; its weight is `config.loss.<name>.weight`.

    A loss that needs `masked` is computed separately for each encoded part of a batch, and the
    values are summed: logits over the vocabulary are too large to keep.

    Attributes:
        title: the display name.
        function: takes a LossBatch, and the options as keywords; returns a scalar.
        needs: the fields of LossBatch that it reads.
        options: `config.loss.<name>.<option>`: the allowed values, or the minimum and maximum.
        shared: options shared by several losses, `config.loss.<option>`.
    """

    title: str
    function: Callable[..., Scalar]
    needs: tuple[str, ...]
    options: Mapping[str, tuple] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


def _info_nce(batch: LossBatch, *, multi_positive: bool, labels: str, **options: Any) -> Scalar:
    if multi_positive:
        options |= {"labels": batch.category, "said": _said(batch, labels)}
    images, texts = batch.read("image_features", "text_features")
    return info_nce(images, texts, **options)


def _sdm(batch: LossBatch, *, labels: str, **options: Any) -> Scalar:
    images, texts = batch.read("image_features", "text_features")
    said = _said(batch, labels)
    return similarity_distribution_matching(images, texts, batch.category, said=said, **options)


def _said(batch: LossBatch, labels: str) -> Said | None:
    return (batch.attributes, batch.said, batch.whole) if labels == "agreement" else None


def _identity(batch: LossBatch) -> Scalar:
    images, texts = batch.read("image_logits", "text_logits")
    return identity_loss(images, texts, batch.category, text_mask=batch.whole)


def _attribute_iou(batch: LossBatch, **options: Any) -> Scalar:
    sets = statements(batch.attributes, batch.said, batch.whole, batch.presences)
    (texts,) = batch.read("text_features")
    return attribute_iou_contrastive(texts, sets, **options)


def _partial(batch: LossBatch, **options: Any) -> Scalar:
    images, texts, said = batch.read("image_features", "partial_text_features", "partial_said")
    # A sentence that states everything agrees only with its category, so nothing is lost.
    said = batch.attributes, said, jnp.zeros(len(batch.category), bool)
    return similarity_distribution_matching(images, texts, batch.category, said=said, **options)


POSITIVE = (1e-30, math.inf)
LOSSES: dict[str, Loss] = {
    "info_nce": Loss(
        "InfoNCE",
        _info_nce,
        needs=("image_features", "text_features"),
        options={"multi_positive": (False, True)},
        shared=("temperature", "chunk_size", "labels", "image_target"),
    ),
    "sdm": Loss(
        "SDM",
        _sdm,
        needs=("image_features", "text_features"),
        shared=("temperature", "chunk_size", "labels", "image_target"),
    ),
    "identity": Loss("ID", _identity, needs=("image_logits", "text_logits")),
    "map": Loss("MAP", lambda batch: masked_attribute_prediction(*batch.masked), needs=("masked",)),
    "attribute_iou": Loss(
        "A-IoU IMC",
        _attribute_iou,
        needs=("text_features",),
        options={"temperature": POSITIVE, "target": ("softmax", "normalized")},
        shared=("chunk_size",),
    ),
    "partial": Loss(
        "Partial",
        _partial,
        needs=("image_features", "partial_text_features"),
        shared=("temperature", "chunk_size", "image_target"),
    ),
}
