"""Our side of the benchmarks: ViT-B/16 at 384×128 on sentences of Market-1501's schema."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contest import Answer, clear_peak, host_peak, matmul_rate
from flax import nnx
from safetensors.numpy import save_file

from aima_jax.convert.layouts import HUGGING_FACE, Row, entries_of, irra
from aima_jax.evaluation.encoder import Encoder
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, ViTConfig
from aima_jax.models.config import OPENAI_MEAN, OPENAI_STD
from aima_jax.models.layers import normalize
from aima_jax.parameters import Parameters, flatten, statistic_names
from aima_jax.platform import Platform, keep_memory, platform_of
from aima_jax.sharding import make_mesh
from aima_jax.text import PromptTemplate, build_text_table
from aima_jax.training.objective import Metrics, Objective
from aima_jax.training.optimizer import make_optimizer, match_rules
from aima_jax.training.step import CategoryTable, TrainState, draw_rows, make_train_step
from configs import market1501
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.market1501_attribute.wording import WORDING

CATEGORIES = 500  # about as many as Market-1501's training people have
CHECKED_STEPS = 2  # whose rows the peer gets


def make_step(
    config: AIMAConfig, platform: Platform, *, micro_batches: int = 1
) -> tuple[Callable[..., tuple[TrainState, Metrics]], Callable[[Parameters], TrainState]]:
    """The step of configs/market1501.py, to be jitted, and the state before it from parameters."""
    settings = market1501.get_config()
    skeleton = nnx.eval_shape(partial(create, config, platform))
    schedule = optax.constant_schedule(settings.optimizer.learning_rate)
    trainable = frozenset(flatten(skeleton)) - statistic_names(skeleton)
    optimizer = make_optimizer(
        sorted(trainable),
        settings.optimizer.rules,
        schedule,
        beta1=settings.optimizer.beta1,
        beta2=settings.optimizer.beta2,
        epsilon=settings.optimizer.epsilon,
        gradient_clip=0.0,
    )
    step = make_train_step(
        skeleton,
        optimizer,
        Objective.from_config(settings),
        trainable=trainable,
        schedule=schedule,
        augmentation=settings.augment.to_dict(),
        seed=0,
        micro_batches=micro_batches,
        platform=platform,
    )
    return step, partial(TrainState.create, optimizer=optimizer, trainable=trainable)


def training_step(
    batch: int, micro_batch: int, dtype: str, remat: str, length: int, steps: int
) -> Callable[[], Answer]:
    """Make our step ready; after those that are compared, a turn is so many steps."""
    keep_memory()
    config, platform = model_config(dtype=dtype, remat=remat), platform_of(make_mesh())
    step, create_state = make_step(config, platform, micro_batches=batch // micro_batch)
    params = jax.block_until_ready(flatten(create(config, platform)))
    state = jax.jit(create_state, donate_argnums=0)(params)
    table, rows = jax.device_put((draw_categories(length), draw_batch(batch)))
    clear_peak()
    start = time.perf_counter()
    options = platform.compiler_options()
    jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
    compiled = jitted.lower(state, rows, table).compile()
    names = list(Objective.from_config(market1501.get_config()).weights)
    memory = compiled.memory_analysis()
    assert memory is not None
    answer = {
        "device": jax.devices()[0].device_kind,
        "compiling": time.perf_counter() - start,
        "XLA FLOPs": (compiled.cost_analysis() or {})["flops"],
        "temporary": memory.temp_size_in_bytes,
        "FLOPs": count_flops(config, batch, table.tokens.shape[-1]),
    }

    taken = 0

    def take_steps() -> Answer:
        nonlocal state, taken
        count = 1 if taken < CHECKED_STEPS else steps
        start, metrics = time.perf_counter(), {}
        for _ in range(count):
            state, metrics = compiled(state, rows, table)
        metrics = jax.device_get(metrics)
        seconds = (time.perf_counter() - start) / count
        taken += count
        losses = [float(metrics[name]) for name in names]
        return answer | {"seconds": seconds, "losses": losses, "bytes": jax_peak()}

    return take_steps


def write_training(batch: int, length: int, folder: pathlib.Path) -> None:
    """Write our weights for the peer, and the rows of the steps that are compared."""
    settings = market1501.get_config()
    write_model(folder)
    table, rows = jax.device_put((draw_categories(length), draw_batch(batch)))
    augmentation = settings.augment.to_dict() | {"mean": OPENAI_MEAN, "std": OPENAI_STD}
    for step in range(CHECKED_STEPS):
        key = jax.random.fold_in(jax.random.key(0), step)
        drawn = draw_rows(key, rows, table, Objective.from_config(settings), augmentation)
        np.savez(folder / f"rows-{step}.npz", **jax.device_get(drawn))


def create(config: AIMAConfig, platform: Platform | None = None) -> AIMA:
    """The same model in every process."""
    return AIMA(config, rngs=nnx.Rngs(0), platform=platform)


def model_config(name: str = "ViT-B/16", **options: Any) -> AIMAConfig:
    """A preset for pictures of 384×128 pixels."""
    clip = CLIPConfig.preset(name, image_size=(384, 128), **options)
    return AIMAConfig(clip, num_categories=CATEGORIES)


def draw_categories(length: int) -> CategoryTable:
    """Random people of Market-1501's schema, their sentences padded to a length at least."""
    rng = np.random.default_rng(0)
    rows = set()
    while len(rows) < CATEGORIES:
        person = {
            group.name: bool(rng.integers(2)) if group.kind == "flag" else rng.choice(group.answers)
            for group in market1501_schema.groups
        }
        rows.add(market1501_schema.encode(person).tobytes())
    attributes = np.array([np.frombuffer(row, np.uint8) for row in sorted(rows)])
    template = PromptTemplate(market1501_schema, "sentence", WORDING)
    table = CategoryTable.of(build_text_table(attributes, template))
    padding = ((0, 0), (0, 0), (0, max(0, length - table.tokens.shape[-1])))
    return dataclasses.replace(
        table,
        tokens=np.pad(table.tokens, padding),
        phrase_ids=np.pad(table.phrase_ids, padding, constant_values=-1),
    )


def draw_batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (size, 384, 128, 3), np.uint8),
        "category": rng.integers(0, CATEGORIES, size).astype(np.int32),
        "request": np.zeros(1, np.int32),
    }


def write_model(folder: pathlib.Path) -> None:
    """Write our weights under the peer's names, the model's shape and the optimizer's groups."""
    config, optimizer = model_config(), market1501.get_config().optimizer
    params = flatten(create(config))
    clip = (
        Row(f"clip.{row.theirs}", tuple(f"clip.{name}" for name in row.ours), row.axes)
        for row in HUGGING_FACE
    )
    entries = entries_of(params, (*clip, *irra(())))
    weights = {e.theirs: e.join([np.asarray(params[name]) for name in e.ours]) for e in entries}
    save_file(
        {name: np.ascontiguousarray(array) for name, array in weights.items()},
        folder / "weights.safetensors",
    )
    matched = match_rules(params, optimizer.rules)
    task = {
        "model": config.to_dict(),
        "grid": config.clip.vision.grid(config.clip.image_size),
        "groups": {e.theirs: optimizer.rules[matched[e.ours[0]]][1:] for e in entries},
        "learning_rate": optimizer.learning_rate,
        "betas": [optimizer.beta1, optimizer.beta2],
        "epsilon": optimizer.epsilon,
    }
    (folder / "task.json").write_text(json.dumps(task))


def count_flops(config: AIMAConfig, batch: int, tokens: int) -> float:
    """Model FLOPs of a training step: two for a multiplication and its addition.

    Forward, `layers` blocks of width w with an MLP of width m over B sequences of n tokens take

        layers · (2·B·n·(4·w² + 2·w·m) + 4·B·n²·w)

    to which come the patches, both projections, the cross-attention, the head at the masked
    positions and the classifier. Backward takes twice as many, but for the patches, since pictures
    need no gradient. What is computed again (remat, micro-batches) does not count.
    """
    clip, dim, depth = config.clip, config.clip.dim, config.fusion_depth
    assert isinstance(clip.vision, ViTConfig)
    positions = market1501.get_config().mask_capacity
    rows, columns = clip.vision.grid(clip.image_size)
    seen = 1 + rows * columns

    def stack(layers, width, mlp, sequences, n):
        products = 2 * sequences * n * (4 * width**2 + 2 * width * mlp)
        return layers * (products + 4 * sequences * n**2 * width)

    def tower(shape, sequences, n):
        stacked = stack(shape.layers, shape.width, shape.mlp_width, sequences, n)
        return stacked + 2 * sequences * n * shape.width * dim

    patches = 2 * batch * (seen - 1) * 3 * clip.vision.patch_size**2 * clip.vision.width
    forward = tower(clip.vision, batch, seen) + tower(clip.text, 2 * batch, tokens)
    forward += 4 * batch * (tokens + seen) * dim**2 + 4 * batch * tokens * seen * dim
    forward += stack(depth, dim, 4 * dim, batch, tokens)
    forward += 2 * batch * positions * (dim**2 + dim * clip.text.vocabulary)
    forward += 2 * 2 * batch * dim * config.num_categories
    return 3 * forward + 2 * patches


def matmul() -> Callable[[], Answer]:
    """Make a square product ready, in the type that training computes in."""
    keep_memory()
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (2048, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)

    def multiply(count: int) -> None:
        y = x
        for _ in range(count):
            y = product(x, y)  # one after the other
        y.block_until_ready()

    return lambda: matmul_rate(size, multiply)


def kind() -> Callable[[], Answer]:
    """Tell what JAX computes on."""
    return lambda: {"kind": jax.default_backend()}


def jax_peak() -> int:
    """The highest memory in use: of the accelerator where there is one, else of this process."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else host_peak()


def encoding(batch: int, dtype: str) -> Callable[[], Answer]:
    """Make the encoding of a gallery ready; it returns the features as well."""
    keep_memory()
    mesh = make_mesh(devices=jax.devices()[:1])
    model = create(model_config(dtype=dtype), platform_of(mesh))
    params, images = flatten(model), draw_batch(batch)["image"]
    encoder = Encoder(model, mesh, batch_size=batch)
    clear_peak()

    def once() -> Answer:
        start = time.perf_counter()
        features = np.stack(list(encoder.pictures(params, images)))
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "bytes": jax_peak(), "features": features}

    return once


def write_encoding(batch: int, folder: pathlib.Path) -> None:
    """Write our weights for the peer, and the pictures as it takes them."""
    write_model(folder)
    images = normalize(jnp.asarray(draw_batch(batch)["image"]), OPENAI_MEAN, OPENAI_STD)
    np.savez(folder / "pictures.npz", images=np.asarray(images))
