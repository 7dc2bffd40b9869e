"""The optimizer against PyTorch's Adam, and the default table against the recipe."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from aima_jax.models import AIMA, AIMAConfig, CLIPConfig
from aima_jax.parameters import flatten
from aima_jax.training.optimizer import (
    learning_rate_schedule,
    make_optimizer,
    match_rules,
    trainable_names,
)
from configs import common

RULES = common.get_config().optimizer.rules


@pytest.fixture(scope="module")
def names():
    config = AIMAConfig(CLIPConfig.preset("tiny"), num_categories=3)
    return list(flatten(nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0)))))


def expected_rule(name):
    """Learning-rate factor and decay, written from the recipe and not from the table."""
    is_bias = name.endswith("bias")
    decay = 0.0 if is_bias else 4e-5
    if name.startswith(("map_head", "classifier")):
        return 5.0, decay
    if is_bias:
        return 2.0, decay
    in_fusion = name.startswith("fusion.")
    alone = any(f"fusion.{norm}." in name for norm in ("text_norm", "image_norm", "final_norm"))
    return (5.0 if in_fusion and not alone else 1.0), decay


def test_default_rules_are_the_recipe(names):
    matched = match_rules(names, RULES)
    assert {name: tuple(RULES[rule][1:]) for name, rule in matched.items()} == {
        name: expected_rule(name) for name in names
    }


def test_frozen_parameters_are_not_trainable(names):
    rules = ((r"^clip\.text\.", 0.0, 0.0), *RULES)
    trainable = trainable_names(names, rules)
    assert trainable == {name for name in names if not name.startswith("clip.text.")}


@pytest.mark.parametrize("rules", [((r"(", 1.0, 0.0),), ((r"kernel$", 1.0, 0.0),)])
def test_bad_rules_are_refused(names, rules):
    with pytest.raises(ValueError, match=r"optimizer\.rules"):
        match_rules(names, rules)


def test_schedule():
    schedule = learning_rate_schedule(1.0, steps=100, warmup_steps=10, warmup_factor=0.1)
    values = np.array([schedule(step) for step in range(101)])
    warmup = 0.1 + 0.9 * np.arange(11) / 10
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(91) / 90))
    np.testing.assert_allclose(values, np.concatenate([warmup, cosine[1:]]), atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_equals_pytorch_adam_with_decay_where_there_was_a_gradient(clip, epsilon):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's Adam")
    decay, steps = 0.05, 12
    rules = ((r"bias$", 2.0, 0.0), (r"", 1.0, decay))
    rng = np.random.default_rng(0)
    start = {"a.kernel": rng.normal(size=(3, 4)), "a.bias": rng.normal(size=4)}
    start = {name: value.astype(np.float32) for name, value in start.items()}
    # Of the kernel, a row gets no gradient ever, and another one in one step alone.
    sizes = np.ones((steps, 3, 1))
    sizes[:, 0] = sizes[:4, 1] = sizes[5:, 1] = 0
    schedule = learning_rate_schedule(0.01, steps=20, warmup_steps=4, warmup_factor=0.1)

    optimizer = make_optimizer(
        start, rules, schedule, beta1=0.9, beta2=0.999, epsilon=epsilon, gradient_clip=clip
    )
    params = {name: jnp.asarray(value) for name, value in start.items()}
    state = optimizer.init(params)
    kernel, bias = (torch.nn.Parameter(torch.tensor(value)) for value in start.values())
    adam = torch.optim.Adam(
        [{"params": [kernel], "factor": 1.0}, {"params": [bias], "factor": 2.0}], eps=epsilon
    )
    touched = torch.zeros(3, 4, dtype=torch.bool)
    for step in range(steps):
        gradients = {name: rng.normal(size=p.shape).astype(np.float32) for name, p in start.items()}
        gradients["a.kernel"] *= sizes[step].astype(np.float32)
        updates, state = optimizer.update(
            {name: jnp.asarray(g) for name, g in gradients.items()}, state, params, step=step
        )
        params = optax.apply_updates(params, updates)
        kernel.grad, bias.grad = (torch.tensor(gradient) for gradient in gradients.values())
        if clip:
            torch.nn.utils.clip_grad_norm_([kernel, bias], clip)
        touched |= kernel.grad != 0
        kernel.grad += decay * kernel.detach() * touched
        for group in adam.param_groups:
            group["lr"] = float(schedule(step)) * group["factor"]
        adam.step()
    for name, theirs in (("a.kernel", kernel), ("a.bias", bias)):
        np.testing.assert_allclose(params[name], theirs.detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(params["a.kernel"][0], start["a.kernel"][0])
    assert np.all(params["a.kernel"][1] != start["a.kernel"][1])
