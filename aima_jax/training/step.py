"""One training step: pictures and categories in, the updated state and losses out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int8, Int32, PRNGKeyArray, UInt8

from aima_jax.models import AIMA
from aima_jax.parameters import Parameters, bind
from aima_jax.platform import Platform
from aima_jax.text import TextTable
from aima_jax.training.augment import augment
from aima_jax.training.masking import attribute_words, mask_phrases
from aima_jax.training.objective import Metrics, Objective, Rows

Tree = TypeVar("Tree")


@no_type_check  # mapped as a tree, it holds shardings and much else for a while
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    `step` is the next step to take, which also gives the position in the data. `failed` is the
    first step whose loss or gradient was not finite, -1 if none; from then on parameters do not
    change. `skipped` counts such steps if they are skipped instead.
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
        trained: Any = {name: p for name, p in params.items() if name in trainable}
        moments = optimizer.init(trained)
        return cls(jnp.int32(0), params, moments, failed=jnp.int32(-1), skipped=jnp.int32(0))


@no_type_check  # as TrainState
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CategoryTable:
    """The text side of a split: a row for each category, with one sentence for each variant.

    A batch refers to rows by index. For the fields see `TextTable`; `words` are its phrases' words.
    """

    tokens: Int32[Array | np.ndarray, "category variant tokens"]
    phrase_ids: Int32[Array | np.ndarray, "category variant tokens"]
    said: Int8[Array | np.ndarray, "category variant attributes"]
    whole: Bool[Array | np.ndarray, "category variant"]
    attributes: UInt8[Array | np.ndarray, "category attributes"]
    presences: Bool[Array | np.ndarray, "attributes"]
    words: Int32[Array | np.ndarray, "words"]

    @classmethod
    def of(cls, table: TextTable) -> "CategoryTable":
        """Take what a step needs from a text table, still as host arrays."""
        names = ("tokens", "phrase_ids", "said", "whole", "attributes", "presences")
        arrays: dict[str, Any] = {name: getattr(table, name) for name in names}
        arrays["words"] = attribute_words(table.tokens, table.phrase_ids)
        return cls(**arrays)


def make_train_step(
    skeleton: AIMA,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    *,
    trainable: frozenset[str],
    schedule: optax.Schedule,
    augmentation: Mapping[str, Any],
    seed: int,
    micro_batches: int = 1,
    skip_nonfinite: bool = False,
    platform: Platform | None = None,
) -> Callable[[TrainState, Rows, CategoryTable], tuple[TrainState, Metrics]]:
    """Build the pure step function, to be jitted with the state donated.

    Its batch has `image` uint8[batch, height, width, 3], `category` int32[batch], and `request`
    int32[batch], the hosts' requests (see training/loop.py), of which the largest is returned.

    Args:
        skeleton: the model, which may be abstract; its parameters are in the state.
        optimizer: over the `trainable` parameters as a flat dict.
        objective: the losses.
        trainable: names of the parameters that change.
        schedule: the learning rate by step, for the metrics.
        augmentation: keyword arguments of `augment`, except the pixel statistics.
        seed: all randomness of a step depends on (seed, step) alone.
        micro_batches: number of equal parts in which the batch is encoded.
        skip_nonfinite: count a non-finite step and continue, instead of freezing the state.
        platform: the target platform; None is correct on all.
    """

    vision = skeleton.config.clip.vision
    augmentation = {"mean": vision.pixel_mean, "std": vision.pixel_std, **augmentation}

    stepped = optax.with_extra_args_support(optimizer)

    def loss_and_metrics(
        params: Parameters, frozen: Parameters, rows: Rows
    ) -> tuple[Array, Metrics]:
        return objective(bind(skeleton, params | frozen), rows, parts=micro_batches)

    def step(state: TrainState, batch: Rows, table: CategoryTable) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        rows = draw_rows(key, batch, table, objective, augmentation)
        params: Any = {name: p for name, p in state.params.items() if name in trainable}
        frozen = {name: p for name, p in state.params.items() if name not in trainable}
        gradients, metrics = jax.grad(loss_and_metrics, has_aux=True)(params, frozen, rows)
        norm = optax.tree.norm(gradients)
        running = state.failed < 0
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        failed = state.failed
        if not skip_nonfinite:
            failed = jnp.where(running & ~finite, state.step, failed)

        def update() -> tuple[Parameters, optax.OptState]:
            updates, opt_state = stepped.update(gradients, state.opt_state, params, step=state.step)
            updated: Any = optax.apply_updates(params, updates)
            return updated, opt_state

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
    """The result of `update` if accepted, else the old tree."""
    if platform is not None and platform.kind == "cpu":
        # A select makes XLA's CPU backend copy the parameters and both moments first.
        return jax.lax.cond(accept, update, lambda: old)
    # With a branch, the host would wait for the step before dispatching the next.
    return jax.tree.map(partial(jnp.where, accept), update(), old)


def draw_rows(
    key: PRNGKeyArray,
    batch: Rows,
    table: CategoryTable,
    objective: Objective,
    augmentation: Mapping[str, Any],
) -> Rows:
    """Draw the sentences of a batch, augment its pictures and mask phrases."""
    image_key, mask_key, sentence_key, partial_key = jax.random.split(key, 4)
    category = batch["category"]
    sentence = (
        category,
        draw_variants(sentence_key, len(category), table.whole.shape[1], varied=objective.varied),
    )
    rows = {
        "category": category,
        "image": augment(image_key, batch["image"], **augmentation),
        "tokens": table.tokens[sentence],
        "said": table.said[sentence],
        "whole": table.whole[sentence],
        "attributes": table.attributes[category],
        "presences": jnp.broadcast_to(table.presences, (len(category), len(table.presences))),
    }
    if objective.needs("masked") or objective.match_masked_text:
        masked = mask_phrases(
            mask_key,
            rows["tokens"],
            table.phrase_ids[sentence],
            attribute_words=table.words,
            **objective.masking,
        )
        rows |= zip(("masked_tokens", "positions", "targets", "mask"), masked, strict=True)
    if objective.needs("partial_text_features"):
        partial = category, draw_partial_variants(partial_key, table.whole[category])
        rows |= {"partial_tokens": table.tokens[partial], "partial_said": table.said[partial]}
    return rows


def draw_variants(
    key: PRNGKeyArray, batch: int, variants: int, *, varied: float
) -> Int32[Array, "batch"]:
    """Draw variant 0, or with probability `varied` one of the others, uniformly.

    The draw of row i depends on `key` and i alone.
    """
    if variants == 1:
        return jnp.zeros(batch, jnp.int32)

    def draw_one(row: Array) -> Array:
        whether_key, which_key = jax.random.split(jax.random.fold_in(key, row))
        other = jax.random.randint(which_key, (), 1, variants)
        return jnp.where(jax.random.bernoulli(whether_key, varied), other, 0)

    return jax.vmap(draw_one)(jnp.arange(batch))


def draw_partial_variants(
    key: PRNGKeyArray, whole: Bool[Array, "batch variant"]
) -> Int32[Array, "batch"]:
    """Draw one of each row's partial variants, uniformly; variant 0 if all are whole.

    The draw of row i depends on `key`, i and its variants alone.
    """

    def draw_one(row: Array, whole: Array) -> Array:
        draws = jax.random.uniform(jax.random.fold_in(key, row), whole.shape)
        return jnp.argmax(jnp.where(whole, -1, draws)).astype(jnp.int32)

    return jax.vmap(draw_one)(jnp.arange(len(whole)), whole)
