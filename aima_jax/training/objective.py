"""The training objective: the weighted losses of a batch, encoded whole or in parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from aima_jax.losses import LOSSES, LossBatch, Masked
from aima_jax.models import AIMA, text_mask
from aima_jax.training.masking import MASKING_OPTIONS

Rows = dict[str, Array]  # arrays that share the axis "batch"
Metrics = dict[str, Float[Array, ""]]


@dataclass(frozen=True)
class Objective:
    """The losses with a weight, and the masking of sentences for them.

    Attributes:
        weights: by the loss's name in `LOSSES`; never 0.
        options: keyword arguments of each of these losses.
        masking: keyword arguments of `mask_phrases`.
        match_masked_text: all losses see the masked sentence, as in IRRA's code.
        varied: probability that a row's sentence is not the first of its category.
    """

    weights: Mapping[str, float]
    options: Mapping[str, Mapping[str, Any]]
    masking: Mapping[str, Any]
    match_masked_text: bool
    varied: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Objective":
        """Build the objective from a config."""
        shared = {**config.loss, "chunk_size": config.loss.chunk_size or None}
        weights, options = {}, {}
        for name, loss in LOSSES.items():
            own = config.loss[name]
            if own.weight:
                weights[name] = own.weight
                options[name] = {option: own[option] for option in loss.options}
                options[name] |= {option: shared[option] for option in loss.shared}
        masking = {name: config[name] for name in MASKING_OPTIONS}
        return cls(weights, options, masking, config.match_masked_text, config.sentences.varied)

    def needs(self, *fields: str) -> bool:
        """Whether any weighted loss reads one of these fields of a LossBatch."""
        return any(field in LOSSES[name].needs for name in self.weights for field in fields)

    def __call__(
        self, model: AIMA, rows: Rows, *, parts: int = 1
    ) -> tuple[Float[Array, ""], Metrics]:
        """The weighted sum of the losses of some rows, and each of them.

        Args:
            model: encodes the rows.
            rows: as returned by `draw_rows`.
            parts: number of equal parts in which rows are encoded; losses see all rows.
        """
        count = jnp.sum(rows["mask"], dtype=jnp.float32) if "mask" in rows else jnp.float32(0)
        features, shares = _in_parts(lambda part: self._encode(model, part, count), rows, parts)
        logits = {
            f"{side}_logits": model.classify(features[f"{side}_features"])
            for side in ("image", "text")
            if self.needs(f"{side}_logits")
        }
        batch = _loss_batch(rows, **features, **logits)
        values = {
            name: shares[name] if name in shares else self._loss(name, batch)
            for name in self.weights
        }
        weighted = (weight * values[name] for name, weight in self.weights.items())
        total = sum(weighted, start=jnp.float32(0))
        return total, {"loss": total} | values | shares

    def _loss(self, name: str, batch: LossBatch) -> Float[Array, ""]:
        return LOSSES[name].function(batch, **self.options[name])

    def _encode(self, model: AIMA, rows: Rows, count: Array) -> tuple[Rows, Metrics]:
        """Features of some rows, and their contribution to losses on masked sentences."""
        features, image_tokens = {}, None
        if self.needs("masked"):
            features["image_features"], image_tokens = model.encode_image(rows["image"])
        elif self.needs("image_features", "image_logits"):
            features["image_features"] = model.image_features(rows["image"])

        sentences = {}  # features to compute, and the tokens they are computed from
        if self.needs("text_features", "text_logits"):
            sentences["text_features"] = "masked_tokens" if self.match_masked_text else "tokens"
        if self.needs("partial_text_features"):
            sentences["partial_text_features"] = "partial_tokens"
        read = {*sentences.values()} | ({"masked_tokens"} if self.needs("masked") else set())
        texts = _encode_sentences(model, {name: rows[name] for name in sorted(read)})
        features |= {name: texts[source][0] for name, source in sentences.items()}
        if image_tokens is None:
            return features, {}

        _, text_tokens = texts["masked_tokens"]
        hidden = model.fuse(text_tokens, image_tokens, text_mask(rows["masked_tokens"]))
        picked = jnp.take_along_axis(hidden, rows["positions"][..., None], axis=1)
        masked = Masked(model.predict_masked(picked), rows["targets"], rows["mask"], count)
        batch = _loss_batch(rows, masked=masked)
        names = [name for name in self.weights if "masked" in LOSSES[name].needs]
        shares = {name: self._loss(name, batch) for name in names}
        return features, shares | {"map_accuracy": _accuracy(masked)}


def _loss_batch(rows: Rows, **computed: Any) -> LossBatch:
    names = ("category", "attributes", "presences", "said", "whole", "partial_said")
    return LossBatch(**{name: rows[name] for name in names if name in rows}, **computed)


def _encode_sentences(
    model: AIMA, sentences: Mapping[str, Int[Array, "batch tokens"]]
) -> dict[str, tuple[Array, Array]]:
    """Features and tokens of several sentences per row, encoded in one pass."""
    if not sentences:
        return {}
    # A row's sentences are adjacent, so that rows stay on their device.
    stacked = jnp.stack(list(sentences.values()), axis=1)
    features, tokens = model.encode_text(stacked.reshape(-1, stacked.shape[-1]))
    features = features.reshape(*stacked.shape[:2], -1)
    tokens = tokens.reshape(*stacked.shape, -1)
    return {name: (features[:, i], tokens[:, i]) for i, name in enumerate(sentences)}


def _accuracy(masked: Masked) -> Float[Array, ""]:
    """The contribution of some rows to the top-1 accuracy on masked words."""
    of_target = jnp.take_along_axis(masked.logits, masked.targets[..., None], axis=-1)[..., 0]
    hits = (of_target >= jnp.max(masked.logits, axis=-1)) & masked.mask
    return jnp.sum(hits, dtype=jnp.float32) / jnp.maximum(masked.total, 1)


def _in_parts(
    encode: Callable[[Rows], tuple[Rows, Metrics]], rows: Rows, parts: int
) -> tuple[Rows, Metrics]:
    """Encode rows in equal parts, recomputing each for the backward pass.

    The losses see the features of all parts, so the gradient is the whole batch's with the memory
    of one part (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup"). A part takes every `parts`-th row, so that each row stays on its device.
    """
    if parts == 1:
        return encode(rows)
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), rows)
    features, shares = jax.lax.map(jax.checkpoint(encode), split)
    joined = {n: x.swapaxes(0, 1).reshape(-1, x.shape[-1]) for n, x in features.items()}
    return joined, jax.tree.map(jnp.sum, shares)
