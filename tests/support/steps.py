"""A small model, a table and a batch, and the steps that train it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from aima_jax.losses import LOSSES
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, TextConfig, ViTConfig
from aima_jax.parameters import flatten
from aima_jax.platform import platform_of
from aima_jax.sharding import batch_sharding, make_mesh, put_rows, replicated, state_shardings
from aima_jax.text import PromptTemplate, build_text_table
from aima_jax.training.step import (
    CategoryTable,
    Objective,
    TrainState,
    make_train_step,
)
from configs import common
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema
from tfds_builders.synthetic_pedestrians.wording import WORDING

BATCH, CATEGORIES, SIZE = 16, 12, (32, 16)
AUGMENTATION = {"flip": 0.5, "pad": 2, "erase": 0.5, "erase_area": (0.02, 0.4)}
NO_AUGMENTATION = {"flip": 0.0, "pad": 0, "erase": 0.0, "erase_area": (0.02, 0.4)}


def small_model(num_categories=CATEGORIES, *, heads=8, pixels=None, words=49408, **options):
    """With heads of fewer channels than there are tokens, so that attention is computed again."""
    tower = {"width": 64, "layers": 2, "heads": heads, "mlp_width": 64}
    clip = CLIPConfig(
        image_size=SIZE,
        dim=64,
        vision=ViTConfig(**tower, patch_size=8, patch_stride=8, **pixels or {}),
        text=TextConfig(**tower, vocabulary=words),
        **options,
    )
    return AIMAConfig(clip, num_categories=num_categories, fusion_depth=1)


@functools.cache
def initial(config):
    """The parameters of a new model."""
    return flatten(AIMA(config, rngs=nnx.Rngs(0)))


def objective(**changes):
    """The default objective with few masked tokens; `changes` are fields of the config."""
    config = common.get_config()
    config.mask_capacity = 4
    config.update_from_flattened_dict(changes)
    return Objective.from_config(config)


def only(**weights):
    """These losses alone."""
    return objective(**{f"loss.{name}.weight": weights.get(name, 0.0) for name in LOSSES})


def descriptions(rng, count):
    """Distinct random attribute vectors of the rendered pedestrians."""
    rows = set()
    while len(rows) < count:
        row = np.zeros(synthetic_schema.size, np.uint8)
        names = list(synthetic_schema.names)
        for group in synthetic_schema.groups:
            bits = [i for i, name in enumerate(names) if name.split("=")[0] == group.name]
            spare = group.kind == "flag" or group.absent is not None
            choice = rng.integers(len(bits) + spare)
            if choice < len(bits):
                row[bits[choice]] = 1
        rows.add(row.tobytes())
    return np.array([np.frombuffer(row, np.uint8) for row in sorted(rows)])


class Setup:
    """A model, a table and a batch, and what one or more steps make of them."""

    def __init__(
        self,
        objective,
        *,
        model=None,
        optimizer=None,
        mesh=None,
        variants=1,
        variation=None,
        **options,
    ):
        rng = np.random.default_rng(0)
        config = model or small_model()
        self.mesh = mesh or make_mesh(devices=jax.devices()[:1])
        platform = platform_of(self.mesh)
        params = initial(config)
        trainable = frozenset(params)
        # Adam's first step is the sign of the gradient; that of SGD shows its size.
        optimizer = optimizer or optax.sgd(1e-2)
        state = TrainState.create(params, optimizer, trainable)
        self.state = jax.device_put(state, state_shardings(state, self.mesh, 1024))
        template = PromptTemplate(synthetic_schema, "sentence", WORDING)
        table = build_text_table(
            descriptions(rng, CATEGORIES), template, variants=variants, variation=variation
        )
        self.table = jax.device_put(CategoryTable.of(table), replicated(self.mesh))
        self.rows = {
            "image": rng.integers(0, 256, (BATCH, *SIZE, 3), np.uint8),
            "category": rng.integers(0, CATEGORIES, BATCH).astype(np.int32),
        }
        step = make_train_step(
            nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0), platform=platform)),
            optimizer,
            objective,
            trainable=trainable,
            seed=0,
            platform=platform,
            **{"augmentation": AUGMENTATION, "schedule": lambda step: 0.1} | options,
        )
        where = jax.tree.map(lambda x: x.sharding, self.state)
        self.step = jax.jit(step, out_shardings=(where, replicated(self.mesh)))

    def batch(self, **rows):
        """What a step is given."""
        batch = put_rows(self.rows | rows, batch_sharding(self.mesh))
        return batch | {"request": jnp.zeros(self.mesh.size, jnp.int32)}

    def take(self, steps=1, **rows):
        """Take steps on one batch; return the metrics of each."""
        batch, metrics = self.batch(**rows), []
        for _ in range(steps):
            self.state, got = self.step(self.state, batch, self.table)
            metrics.append({name: float(value) for name, value in got.items()})
        return metrics

    def params(self):
        return {name: np.asarray(value) for name, value in self.state.params.items()}
