"""Our side of the benchmarks: ViT-B/16 at 384×128 on sentences of Market-1501's schema."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from aima_jax.evaluation.encode import Encoder
from contest import Answer, clear_peak, host_peak, matmul_rate
from flax import nnx
from safetensors.numpy import save_file

from aima_jax.allocation import give_back_memory
from aima_jax.convert.layouts import HUGGING_FACE, Row, entries_of, irra
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig
from aima_jax.models.config import OPENAI_MEAN, OPENAI_STD
from aima_jax.parameters import Parameters, flatten
from aima_jax.pixels import normalize
from aima_jax.platform import platform_of
from aima_jax.sharding import make_mesh
from aima_jax.text import PromptTemplate, build_text_table
from aima_jax.training.optimizer import make_optimizer, match_rules
from aima_jax.training.step import CategoryTable, Objective, TrainState, draw, make_train_step
from configs import market1501
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.market1501_attribute.wording import WORDING

CATEGORIES = 500  # about as many as Market-1501's training people have
CHECKED_STEPS = 2  # whose rows the peer gets


def training_step(
    batch: int, micro_batch: int, dtype: str, remat: str, length: int, steps: int
) -> Callable[[], Answer]:
    """Makes our step ready; after those that are compared, a turn is so many steps."""
    settings, platform = market1501.get_config(), platform_of(make_mesh())
    config = model_config(dtype, remat)
    params = initial_parameters(config)
    table, rows = jax.device_put((draw_categories(length), draw_batch(batch)))
    schedule = optax.constant_schedule(settings.optimizer.learning_rate)
    optimizer = make_optimizer(
        params,
        settings.optimizer.rules,
        schedule,
        beta1=settings.optimizer.beta1,
        beta2=settings.optimizer.beta2,
        epsilon=settings.optimizer.epsilon,
        gradient_clip=0.0,
    )
    trainable = frozenset(params)
    objective = Objective.from_config(settings)
    step = make_train_step(
        nnx.eval_shape(partial(create, config)),
        optimizer,
        objective,
        trainable=trainable,
        schedule=schedule,
        augmentation=settings.augment.to_dict(),
        seed=0,
        micro_batches=batch // micro_batch,
        platform=platform,
    )
    state = jax.jit(
        lambda params: TrainState.create(params, optimizer, trainable), donate_argnums=0
    )(params)
    del params
    clear_peak()
    start = time.perf_counter()
    step = jax.jit(step, donate_argnums=0, compiler_options=platform.compiler_options())
    compiled = step.lower(state, rows, table).compile()
    compiling = time.perf_counter() - start
    jax.clear_caches()  # as the training loop does
    give_back_memory()
    answer = {
        "device": jax.devices()[0].device_kind,
        "compiling": compiling,
        "XLA FLOPs": compiled.cost_analysis()["flops"],
        "FLOPs": count_flops(config, batch, table.tokens.shape[-1], settings.mask_capacity),
    }

    taken = 0

    def take_steps() -> Answer:
        nonlocal state, taken
        count = 1 if taken < CHECKED_STEPS else steps
        start = time.perf_counter()
        for _ in range(count):
            state, metrics = compiled(state, rows, table)
        metrics = jax.device_get(metrics)
        seconds = (time.perf_counter() - start) / count
        taken += count
        losses = [float(metrics[name]) for name in objective.weights]
        return answer | {"seconds": seconds, "losses": losses, "bytes": jax_peak()}

    return take_steps


def leave_training(batch: int, length: int, folder: pathlib.Path) -> None:
    """Leaves the peer our weights, and the rows of the steps that are compared."""
    settings = market1501.get_config()
    leave_model(folder)
    table, rows = jax.device_put((draw_categories(length), draw_batch(batch)))
    for step in range(CHECKED_STEPS):
        key = jax.random.fold_in(jax.random.key(0), step)
        augmentation = settings.augment.to_dict() | {"mean": OPENAI_MEAN, "std": OPENAI_STD}
        drawn = draw(key, rows, table, Objective.from_config(settings), augmentation)
        np.savez(folder / f"rows-{step}.npz", **jax.device_get(drawn))


def create(config: AIMAConfig) -> AIMA:
    """The same model in every process."""
    return AIMA(config, rngs=nnx.Rngs(0), platform=platform_of(make_mesh()))


def initial_parameters(config: AIMAConfig) -> Parameters:
    """The parameters of `create`."""
    return jax.block_until_ready(flatten(create(config)))


def model_config(dtype: str, remat: str = "none") -> AIMAConfig:
    clip = CLIPConfig.preset("ViT-B/16", image_size=(384, 128), dtype=dtype, remat=remat)
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


def leave_model(folder: pathlib.Path) -> None:
    """Writes our weights under the peer's names, the model's shape and the optimizer's groups."""
    config, optimizer = model_config("float32"), market1501.get_config().optimizer
    params = initial_parameters(config)
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


def count_flops(config: AIMAConfig, batch: int, tokens: int, positions: int) -> float:
    """Model FLOPs of a training step: two for a multiplication and its addition.

    Forward, `layers` blocks of width w with an MLP of width m over B sequences of n tokens take

        layers · (2·B·n·(4·w² + 2·w·m) + 4·B·n²·w)

    to which come the patches, both projections, the cross-attention, the head at the masked
    positions and the classifier. Backward takes twice as many, but for the patches, since pictures
    need no gradient. What is computed again (remat, micro-batches) does not count.
    """
    clip, dim, depth = config.clip, config.clip.dim, config.fusion_depth
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
    """Makes a square product ready, in the type that training computes in."""
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


def platform() -> Callable[[], Answer]:
    """Tells what JAX works on."""
    return lambda: {"platform": jax.default_backend()}


def jax_peak() -> int:
    """The highest memory in use: of the accelerator where there is one, else of this process."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else host_peak()


def encoding(batch: int, dtype: str) -> Callable[[], Answer]:
    """Makes the encoding of a gallery ready; it returns the features as well."""
    config = model_config(dtype)
    params = initial_parameters(config)
    rows = {
        "input": draw_batch(batch)["image"],
        "index": np.arange(batch),
        "mask": np.ones(batch, bool),
    }
    skeleton = nnx.eval_shape(partial(create, config))
    mesh = make_mesh(devices=jax.devices()[:1])
    encoder = Encoder(skeleton, mesh, batch_size=batch, threads=1)
    give_back_memory()  # of drawing the parameters
    clear_peak()

    def once() -> Answer:
        start = time.perf_counter()
        features = encoder._collect(encoder._images, params, [rows], batch)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "bytes": jax_peak(), "features": features}

    return once


def leave_encoding(batch: int, folder: pathlib.Path) -> None:
    """Leaves the peer our weights, and the pictures as it takes them."""
    leave_model(folder)
    images = normalize(draw_batch(batch)["image"], OPENAI_MEAN, OPENAI_STD)
    np.savez(folder / "pictures.npz", images=np.asarray(images))
