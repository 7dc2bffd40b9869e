"""Ten training steps beside PyTorch: same weights, same batches, the same five losses at each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from steps import Setup, objective

from aima_jax.convert import load_irra
from aima_jax.parameters import flatten
from aima_jax.platform import platform_of
from aima_jax.training.optimizer import make_optimizer
from aima_jax.training.step import TrainState, draw_rows, make_train_step
from configs import common

torch = pytest.importorskip("torch", reason="the reference is written in PyTorch")
from openai_reference import small_irra  # noqa: E402
from torch.nn import functional  # noqa: E402

NO_AUGMENTATION = {"flip": 0.0, "pad": 0, "erase": 0.0, "erase_area": (0.02, 0.4)}
STEPS, LEARNING_RATE, EPSILON = 10, 1e-4, 1e-3
STRONGER = 1000  # decay than the recipe's, which ten steps would not show


def kl(log_p, q):
    return (log_p.exp() * (log_p - torch.log(q + 1e-8))).sum(dim=1).mean()


def five_losses(model, rows):
    """The losses as METHOD gives them, in the order of `aima_jax.losses.LOSSES`."""
    rows = {name: torch.tensor(np.array(value)) for name, value in rows.items()}
    category = rows["category"].long()
    image_tokens = model.base_model.visual(rows["image"].permute(0, 3, 1, 2))
    text_tokens = model.base_model.encode_text(rows["tokens"].long())
    masked_tokens = model.base_model.encode_text(rows["masked_tokens"].long())
    batch = torch.arange(len(category))
    image = image_tokens[:, 0]
    text = text_tokens[batch, (rows["tokens"] == 49407).int().argmax(dim=1)]
    v, t = functional.normalize(image), functional.normalize(text)

    logits = v @ t.T / 0.02
    info_nce = (
        functional.cross_entropy(logits, batch) + functional.cross_entropy(logits.T, batch)
    ) / 2

    same = (category[:, None] == category[None]).float()
    q = same / same.sum(dim=1, keepdim=True)
    sdm = kl(logits.log_softmax(dim=1), q) + kl(logits.T.log_softmax(dim=1), q)

    identity = (
        functional.cross_entropy(model.classifier(image), category)
        + functional.cross_entropy(model.classifier(text), category)
    ) / 2

    ends = (rows["masked_tokens"] == 49407).int().argmax(dim=1, keepdim=True)
    exists = torch.arange(rows["tokens"].shape[1])[None] <= ends
    hidden = model.fuse(masked_tokens, image_tokens, exists)
    words = model.mlm_head(hidden[batch[:, None], rows["positions"].long()])
    counts = rows["mask"]
    prediction = functional.cross_entropy(words[counts], rows["targets"].long()[counts])

    sets = rows["attributes"].float()
    both = sets @ sets.T
    iou = both / (sets.sum(dim=1)[:, None] + sets.sum(dim=1)[None] - both)
    target = (iou / 0.1).softmax(dim=1)
    attribute_iou = kl((t @ t.T / 0.1).log_softmax(dim=1), target)
    return info_nce, sdm, identity, prediction, attribute_iou


def settings_of(name):
    """Learning-rate factor and decay of a parameter, from the recipe, by IRRA's names."""
    decay = 0.0 if name.endswith("bias") else 4e-5 * STRONGER
    if name.startswith(("mlm_head.", "classifier.")):
        return 5, decay
    if name.endswith("bias"):
        return 2, decay
    return (5 if name.startswith(("cross_attn.", "cross_modal_transformer.")) else 1), decay


class Adam:
    """PyTorch's, with the decay added to the gradient of what has ever had one."""

    def __init__(self, model):
        self.parameters = dict(model.named_parameters())
        self.touched = {n: torch.zeros_like(p, dtype=bool) for n, p in self.parameters.items()}
        groups = [
            {"params": [parameter], "lr": LEARNING_RATE * settings_of(name)[0]}
            for name, parameter in self.parameters.items()
            if parameter.requires_grad
        ]
        self.adam = torch.optim.Adam(groups, eps=EPSILON)

    def step(self, loss):
        self.adam.zero_grad()
        loss.backward()
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.touched[name] |= parameter.grad != 0
                decay = settings_of(name)[1] * self.touched[name]
                parameter.grad += decay * parameter.detach()
        self.adam.step()


def test_ten_steps_of_adam_equal_pytorch(tmp_path):
    chosen = objective()
    setup = Setup(chosen, augmentation=NO_AUGMENTATION)
    theirs = small_irra(categories=len(setup.table.tokens))
    torch.save({"model": theirs.state_dict()}, tmp_path / "start.pth")
    _, model = load_irra(tmp_path / "start.pth", image_size=(32, 16), mesh=setup.mesh)
    params = flatten(model)
    vision = model.config.clip.vision
    augmentation = NO_AUGMENTATION | {"mean": vision.pixel_mean, "std": vision.pixel_std}
    rules = [
        (p, factor, STRONGER * decay) for p, factor, decay in common.get_config().optimizer.rules
    ]
    adam = make_optimizer(
        params,
        rules,
        lambda step: LEARNING_RATE,
        beta1=0.9,
        beta2=0.999,
        epsilon=EPSILON,
        gradient_clip=0.0,
    )
    state = TrainState.create(params, adam, frozenset(params))
    step = jax.jit(
        make_train_step(
            nnx.eval_shape(lambda: model),
            adam,
            chosen,
            trainable=frozenset(params),
            schedule=lambda step: LEARNING_RATE,
            augmentation=NO_AUGMENTATION,
            seed=0,
            platform=platform_of(setup.mesh),
        )
    )
    drawn = jax.jit(lambda key, batch: draw_rows(key, batch, setup.table, chosen, augmentation))
    optimizer = Adam(theirs)
    rng = np.random.default_rng(1)
    for number in range(STEPS):
        batch = {
            "image": jnp.asarray(rng.integers(0, 256, setup.rows["image"].shape, np.uint8)),
            "category": jnp.asarray(rng.integers(0, len(setup.table.tokens), 16), jnp.int32),
            "request": jnp.zeros(1, jnp.int32),
        }
        key = jax.random.fold_in(jax.random.key(0), number)
        rows = drawn(key, batch)
        state, metrics = step(state, batch, setup.table)
        expected = five_losses(theirs, rows)
        optimizer.step(sum(expected))
        ours = [float(metrics[name]) for name in chosen.weights]
        assert ours == pytest.approx([loss.item() for loss in expected], rel=1e-4), number
