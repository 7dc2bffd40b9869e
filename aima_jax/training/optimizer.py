"""Adam with a learning-rate factor and a weight decay for each group of parameters."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

Rule = tuple[str, float, float]


def match_rules(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, int]:
    """Give each parameter the index of the first rule whose pattern is found in its name.

    Args:
        names: parameters, such as "fusion.blocks.0.attention.query.kernel".
        rules: (pattern, learning-rate factor, weight decay); a factor of 0 freezes.

    Raises:
        ValueError: a pattern is not a regular expression, or a parameter matches none.
    """
    for pattern, *_ in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"optimizer.rules: {pattern!r} is not a pattern: {error}") from None
    matched = {
        name: next((i for i, rule in enumerate(rules) if re.search(rule[0], name)), -1)
        for name in names
    }
    if unmatched := [name for name, rule in matched.items() if rule < 0]:
        raise ValueError(
            f"optimizer.rules: no pattern matches {', '.join(unmatched[:5])}"
            f" ({len(unmatched)} parameters); end the table with an empty pattern"
        )
    return matched


def trainable_names(names: Iterable[str], rules: Sequence[Rule]) -> frozenset[str]:
    """Names of the parameters whose rule does not freeze them."""
    matched = match_rules(names, rules)
    return frozenset(name for name, rule in matched.items() if rules[rule][1] != 0)


def learning_rate_schedule(
    peak: float, *, steps: int, warmup_steps: int, warmup_factor: float
) -> optax.Schedule:
    """Linear warm-up from `warmup_factor` × peak, then a cosine to 0 at `steps` (IRRA)."""
    return optax.warmup_cosine_decay_schedule(
        init_value=peak * warmup_factor,
        peak_value=peak,
        warmup_steps=min(warmup_steps, max(steps - 1, 0)),
        decay_steps=max(steps, 1),
    )


def make_optimizer(
    names: Iterable[str],
    rules: Sequence[Rule],
    schedule: optax.Schedule,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    gradient_clip: float,
) -> optax.GradientTransformationExtraArgs:
    """Build Adam over a flat dict of trainable parameters.

    Weight decay is added to the gradient before Adam, as in PyTorch's Adam (IRRA), but only in
    elements that have had a gradient: elements that no batch has touched are bitwise unchanged.
    [ours]

    Args:
        names: the trainable parameters.
        rules: see `match_rules`.
        schedule: learning rate by step, before the rule's factor; each update takes the keyword
            `step`, so that the schedule and the metrics share one count.
        gradient_clip: maximum global norm of the gradients; 0 disables clipping.
    """

    def group(factor: float, decay: float) -> optax.GradientTransformation:
        return optax.chain(
            _adam_with_decay(optax.scale_by_adam(beta1, beta2, epsilon), decay),
            _scale_by_learning_rate(lambda step: factor * schedule(step)),
        )

    labels = match_rules(names, rules)
    groups: dict[Hashable, optax.GradientTransformation] = {
        rule: group(*rules[rule][1:]) for rule in sorted(set(labels.values()))
    }
    adam = optax.partition(groups, labels)
    return optax.chain(optax.clip_by_global_norm(gradient_clip), adam) if gradient_clip else adam


def _scale_by_learning_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Scale by the learning rate of the given step, which counts skipped steps too."""

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        step: Int32[Array, ""] | int,
        **_: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        rate = -jnp.asarray(schedule(step))
        return jax.tree.map(lambda u: jnp.asarray(rate, u.dtype) * u, updates), state

    # Every update takes a step, which optax's type does not have.
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)  # pyright: ignore[reportArgumentType]


def _adam_with_decay(
    adam: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """Adam on g + decay · p where g or the second moment is not 0, elsewhere on 0.

    Adam divides by the gradient's magnitude. Decay alone would therefore move an element without
    any gradient, such as the embedding of an unused word, to 0 in steps as large as any other.
    """

    def add_decay(gradient: Array, param: Array, second_moment: Array) -> Array:
        touched = (gradient != 0) | (second_moment != 0)
        return jnp.where(touched, gradient + decay * param, 0)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return adam.update(jax.tree.map(add_decay, updates, params, state.nu), state)

    return optax.GradientTransformation(adam.init, update) if decay else adam
