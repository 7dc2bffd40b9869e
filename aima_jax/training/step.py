"""One training step: pictures and categories in, a better state and its losses out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, UInt8

from aima_jax import losses
from aima_jax.models import AIMA, text_mask
from aima_jax.parameters import Parameters, bind
from aima_jax.platform import Platform
from aima_jax.text import TextTable
from aima_jax.training.augment import augment
from aima_jax.training.masking import attribute_words, mask_phrases

Rows = dict[str, Array]  # arrays that share the axis "batch"
Metrics = dict[str, Float[Array, ""]]
Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    `step` is the next step to take, and with it the position in the data. `failed` is the first
    step whose loss or gradient was not finite, -1 while there is none; from then on parameters
    stand still. `skipped` counts such steps where they are skipped instead.
    """

    step: Int32[Array, ""]
    params: Parameters
    opt_state: optax.OptState
    failed: Int32[Array, ""]
    skipped: Int32[Array, ""]

    @classmethod
    def create(
        cls,
        params: Parameters,
        optimizer: optax.GradientTransformation,
        trainable: frozenset[str],
    ) -> "TrainState":
        """The state before the first step."""
        moments = optimizer.init({name: p for name, p in params.items() if name in trainable})
        return cls(jnp.int32(0), params, moments, failed=jnp.int32(-1), skipped=jnp.int32(0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CategoryTable:
    """The text side of a split, a row for each category; a batch refers to its rows."""

    tokens: Int32[Array, "category tokens"]
    phrase_ids: Int32[Array, "category tokens"]
    attributes: UInt8[Array, "category attributes"]
    words: Int32[Array, "words"]

    @classmethod
    def of(cls, table: TextTable) -> "CategoryTable":
        """Takes what a step needs from a text table, still as host arrays."""
        words = attribute_words(table.tokens[:, 0], table.phrase_ids[:, 0])
        return cls(table.tokens[:, 0], table.phrase_ids[:, 0], table.attributes, words)


@dataclass(frozen=True)
class Objective:
    """What a step minimises: the weights of the five losses, and their options.

    The fields are those of `config.loss` and of the masking in configs/common.py.
    """

    weights: Mapping[str, float]
    temperature: float
    attribute_iou_temperature: float
    attribute_iou_target: str
    multi_positive: bool
    chunk_size: int | None
    mask_rate: float
    mask_capacity: int
    match_masked_text: bool

    @property
    def predicts(self) -> bool:
        """Whether masked attribute prediction has a weight."""
        return self.weights["map"] != 0

    def losses(
        self,
        image_features: Float[Array, "batch dim"],
        text_features: Float[Array, "batch dim"],
        rows: Rows,
        classify: Callable[[Array], Array],
        masked_prediction: Float[Array, ""],
    ) -> Metrics:
        """Computes each loss that has a weight, over the whole batch."""
        category = rows["category"]
        pair = (image_features, text_features)
        chunk = {"chunk_size": self.chunk_size}
        computations = {
            "info_nce": lambda: losses.info_nce(
                *pair,
                temperature=self.temperature,
                labels=category if self.multi_positive else None,
                **chunk,
            ),
            "sdm": lambda: losses.similarity_distribution_matching(
                *pair, category, temperature=self.temperature, **chunk
            ),
            "identity": lambda: losses.identity_loss(*map(classify, pair), category),
            "map": lambda: masked_prediction,
            "attribute_iou": lambda: losses.attribute_iou_contrastive(
                text_features,
                rows["attributes"],
                temperature=self.attribute_iou_temperature,
                target=self.attribute_iou_target,
                **chunk,
            ),
        }
        return {name: compute() for name, compute in computations.items() if self.weights[name]}


def make_train_step(
    skeleton: AIMA,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    *,
    trainable: frozenset[str],
    schedule: optax.Schedule,
    augmentation: Mapping[str, object],
    seed: int,
    micro_batches: int = 1,
    skip_nonfinite: bool = False,
    platform: Platform | None = None,
) -> Callable[[TrainState, Rows, CategoryTable], tuple[TrainState, Metrics]]:
    """Builds the pure function of a step, to be jitted with the state donated.

    Its batch holds `image` uint8[batch, height, width, 3], `category` int32[batch], and `request`
    int32[batch], what any host asks of all (see training/loop.py), whose largest is reported.

    Args:
        skeleton: the model, which may be abstract; its parameters come with the state.
        optimizer: over the `trainable` parameters as a flat dict.
        objective: the five losses.
        trainable: names of the parameters that change.
        schedule: the learning rate by step, for the metrics.
        augmentation: keyword arguments of `augment`, but for the statistics of the pixels.
        seed: all that is random in a step depends on (seed, step) alone.
        micro_batches: equal parts in which the batch is encoded.
        skip_nonfinite: count a step that is not finite and go on, instead of standing still.
        platform: what the step runs on; None is right everywhere.
    """

    vision = skeleton.config.clip.vision
    augmentation = {"mean": vision.pixel_mean, "std": vision.pixel_std, **augmentation}

    def loss_and_metrics(
        params: Parameters, frozen: Parameters, rows: Rows
    ) -> tuple[Array, Metrics]:
        model = bind(skeleton, params | frozen)
        encode = partial(_encode, objective=objective)
        image_features, text_features, masked = _encode_in_parts(encode, model, rows, micro_batches)
        count = jnp.maximum(masked["count"], 1)
        values = objective.losses(
            image_features, text_features, rows, model.classify, masked["loss"] / count
        )
        loss = sum(objective.weights[name] * value for name, value in values.items())
        accuracy = {"map_accuracy": masked["hits"] / count} if objective.predicts else {}
        return loss, {"loss": loss} | values | accuracy

    def step(state: TrainState, batch: Rows, table: CategoryTable) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        rows = _draw(key, batch, table, objective, augmentation)
        params = {name: p for name, p in state.params.items() if name in trainable}
        frozen = {name: p for name, p in state.params.items() if name not in trainable}
        gradients, metrics = jax.grad(loss_and_metrics, has_aux=True)(params, frozen, rows)
        norm = optax.tree.norm(gradients)
        running = state.failed < 0
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        failed = state.failed
        if not skip_nonfinite:
            failed = jnp.where(running & ~finite, state.step, failed)

        def update() -> tuple[Parameters, optax.OptState]:
            updates, opt_state = optimizer.update(gradients, state.opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        accepted = only_if(running & finite, update, (params, state.opt_state), platform)
        skipped = state.skipped + jnp.where(skip_nonfinite & ~finite, 1, 0)
        report = {
            "gradient_norm": norm,
            "learning_rate": schedule(state.step),
            "failed": failed,
            "skipped": skipped,
            "request": jnp.max(batch["request"]),
        }
        after = TrainState(state.step + 1, accepted[0] | frozen, accepted[1], failed, skipped)
        return after, metrics | report

    return step


def only_if(
    accept: Bool[Array, ""], update: Callable[[], Tree], old: Tree, platform: Platform | None
) -> Tree:
    """What `update` gives, or the old where it is not accepted."""
    if platform is not None and platform.kind == "cpu":
        # A selection makes XLA's CPU backend copy the parameters and both moments first.
        return jax.lax.cond(accept, update, lambda: old)
    # A branch would have the host wait for the step before it can start the next.
    return jax.tree.map(partial(jnp.where, accept), update(), old)


def _draw(
    key: Array,
    batch: Rows,
    table: CategoryTable,
    objective: Objective,
    augmentation: Mapping[str, object],
) -> Rows:
    """Gathers the sentences of a batch, augments its pictures and masks phrases."""
    image_key, mask_key = jax.random.split(key)
    category = batch["category"]
    tokens = table.tokens[category]
    rows = {
        "category": category,
        "image": augment(image_key, batch["image"], **augmentation),
        "tokens": tokens,
        "attributes": table.attributes[category],
    }
    if objective.predicts or objective.match_masked_text:
        names = ("masked_tokens", "positions", "targets", "mask")
        rows |= zip(
            names,
            mask_phrases(
                mask_key,
                tokens,
                table.phrase_ids[category],
                mask_rate=objective.mask_rate,
                capacity=objective.mask_capacity,
                attribute_words=table.words,
            ),
            strict=True,
        )
    return rows


def _encode(model: AIMA, rows: Rows, *, objective: Objective) -> tuple[Array, Array, Metrics]:
    """Image features, text features, and sums over the masked tokens of some rows of a batch."""
    if not objective.predicts:
        image_features = model.image_features(rows["image"])
        matched = "masked_tokens" if objective.match_masked_text else "tokens"
        text_features, _ = model.encode_text(rows[matched])
        return image_features, text_features, dict.fromkeys(("loss", "count"), jnp.float32(0))

    image_features, image_tokens = model.encode_image(rows["image"])
    masked_tokens = rows["masked_tokens"]
    if objective.match_masked_text:
        text_features, text_tokens = model.encode_text(masked_tokens)
    else:
        # Both sentences of a row in one pass, next to each other so that rows stay on their device.
        both = jnp.stack([rows["tokens"], masked_tokens], axis=1)
        features, tokens = model.encode_text(both.reshape(-1, both.shape[-1]))
        text_features = features.reshape(*both.shape[:2], -1)[:, 0]
        text_tokens = tokens.reshape(*both.shape, -1)[:, 1]
    hidden = model.fuse(text_tokens, image_tokens, text_mask(masked_tokens))
    picked = jnp.take_along_axis(hidden, rows["positions"][..., None], axis=1)
    logits = model.predict_masked(picked)
    mask, targets = rows["mask"], rows["targets"]
    count = jnp.sum(mask, dtype=jnp.float32)
    of_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    sums = {
        "loss": losses.masked_attribute_prediction(logits, targets, mask) * count,
        "count": count,
        "hits": jnp.sum((of_target >= jnp.max(logits, axis=-1)) & mask, dtype=jnp.float32),
    }
    return image_features, text_features, sums


def _encode_in_parts(
    encode: Callable[[AIMA, Rows], tuple[Array, Array, Metrics]],
    model: AIMA,
    rows: Rows,
    parts: int,
) -> tuple[Array, Array, Metrics]:
    """Encodes a batch in equal parts, each encoded again on the way back.

    The losses see the features of all parts, so the gradient is that of the whole batch at the
    memory of one part (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
    Limited Setup"). A part takes every `parts`-th row, which leaves each row on its device.
    """
    if parts == 1:
        return encode(model, rows)
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), rows)
    remat = jax.checkpoint(lambda part: encode(model, part))
    image_features, text_features, sums = jax.lax.map(remat, split)

    def join(features: Array) -> Array:
        return features.swapaxes(0, 1).reshape(-1, features.shape[-1])

    return join(image_features), join(text_features), jax.tree.map(jnp.sum, sums)
