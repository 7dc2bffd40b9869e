"""Adam with a learning-rate factor and a weight decay for each group of parameters."""

import re
from collections.abc import Iterable, Sequence

import optax

Rule = tuple[str, float, float]


def match_rules(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, int]:
    """Gives each parameter the index of the first rule whose pattern is found in its name.

    Args:
        names: parameters, as "fusion.blocks.0.attention.query.kernel".
        rules: (pattern, learning-rate factor, weight decay); a factor of 0 freezes.

    Raises:
        ValueError: a pattern is no regular expression, or parameters match none.
    """
    for pattern, *_ in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"optimizer.rules: {pattern!r} is no pattern: {error}") from None
    matched = {
        name: next((i for i, rule in enumerate(rules) if re.search(rule[0], name)), None)
        for name in names
    }
    if unmatched := [name for name, rule in matched.items() if rule is None]:
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
) -> optax.GradientTransformation:
    """Builds Adam over a flat dict of trainable parameters.

    Weight decay is added to the gradient before Adam sees it, as PyTorch's Adam does it (IRRA).

    Args:
        names: the trainable parameters.
        rules: see `match_rules`.
        schedule: learning rate by step, before the rule's factor.
        gradient_clip: largest global norm of the gradients; 0 switches it off.
    """

    def group(factor: float, decay: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(decay) if decay else optax.identity(),
            optax.scale_by_adam(beta1, beta2, epsilon),
            optax.scale_by_learning_rate(lambda step: factor * schedule(step)),
        )

    labels = match_rules(names, rules)
    groups = {rule: group(*rules[rule][1:]) for rule in sorted(set(labels.values()))}
    adam = optax.partition(groups, labels)
    return optax.chain(optax.clip_by_global_norm(gradient_clip), adam) if gradient_clip else adam
