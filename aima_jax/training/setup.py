"""The parts of a run, new or resumed: data, model, optimizer and the jitted step."""

import dataclasses
import pathlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Int32, UInt8
from ml_collections import ConfigDict

from aima_jax import checkpoint
from aima_jax.convert import exported_words, load_pretrained
from aima_jax.data import (
    Dataset,
    Split,
    TrainBatches,
    categories,
    hold_out_categories,
    open_dataset,
    prepared_folder,
)
from aima_jax.distributed import from_first_host
from aima_jax.models import AIMA, CLIP, AIMAConfig, CLIPConfig
from aima_jax.parameters import Parameters, flatten, statistic_names
from aima_jax.platform import Platform, platform_of
from aima_jax.sharding import make_mesh, put_array, replicated, state_shardings
from aima_jax.text import PromptTemplate, TextTable, Variation, build_text_table
from aima_jax.text.tokenizer import END_TOKEN
from aima_jax.training.optimizer import learning_rate_schedule, make_optimizer, trainable_names
from aima_jax.training.saving import clear_damaged, restore_state
from aima_jax.training.step import CategoryTable, Objective, TrainState, make_train_step
from aima_jax.workdir import as_json


@dataclass(frozen=True)
class Problem:
    """The training split, the category of each of its images, and sentences for each category."""

    train: Split
    category: Int32[np.ndarray, "images"]
    table: TextTable
    template: PromptTemplate
    validation: Split | None


@dataclass(frozen=True)
class Run:
    """The parts that training and replaying share; `notes` are messages to the user.

    `step` is jitted and donates its state.
    """

    config: ConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    problem: Problem
    skeleton: AIMA
    batches: TrainBatches
    table: CategoryTable
    step: jax.stages.Wrapped
    state: TrainState
    metadata: checkpoint.Metadata
    notes: list[str]

    @property
    def first_step(self) -> int:
        """The step at which the run starts or resumes."""
        return self.batches.start_step

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training split, without its remainder."""
        return self.batches.steps_per_epoch


def open_run(config: ConfigDict, workdir: pathlib.Path) -> Run:
    """Set up a run, from its newest sound checkpoint or from the start.

    Raises:
        FileNotFoundError: dataset, weights or another run are not where the config says.
        ValueError: they do not match, or the batch size does not suit the devices.
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    platform = platform_of(mesh)
    micro_batches = _micro_batches(config, mesh)
    problem = load_problem(config, open_dataset(prepared_folder(config)))
    dataset = {
        "name": problem.train.dataset,
        "checksum": problem.train.checksum,
        "categories": len(problem.table.attributes),
    }
    notes = clear_damaged(workdir) if jax.process_index() == 0 else []
    newest = from_first_host(lambda: max(checkpoint.steps(workdir), default=-1))
    path = workdir / checkpoint.FOLDER / str(newest)
    if newest < 0:
        skeleton, params = initial_parameters(config, problem.table.attributes, mesh)
        words = known_words(config, problem.table)
    else:
        found = checkpoint.read_metadata(path)
        if found.dataset != dataset:
            raise ValueError(
                f"{config.dataset} has changed since {path} was saved; train in another --workdir"
            )
        skeleton, words = found.abstract_model(platform), found.words
        params = flatten(skeleton)

    batches = TrainBatches(
        problem.train,
        problem.category,
        batch_size=config.batch_size,
        image_size=config.image_size,
        seed=config.seed,
        epochs=config.epochs,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        start_step=max(newest, 0),
        cache="host" if config.data.cache == "host" else "none",
    )
    settings = config.optimizer
    schedule = learning_rate_schedule(
        settings.learning_rate,
        steps=len(batches),
        warmup_steps=round(settings.warmup_epochs * batches.steps_per_epoch),
        warmup_factor=settings.warmup_factor,
    )
    statistics = statistic_names(skeleton)
    trainable = trainable_names([n for n in params if n not in statistics], settings.rules)
    optimizer = make_optimizer(
        sorted(trainable),
        settings.rules,
        schedule,
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
        gradient_clip=settings.gradient_clip,
    )
    place = {"mesh": mesh, "min_shard_elements": config.mesh.min_shard_elements}
    if newest < 0:
        state = initial_state(params, optimizer, trainable, **place)
    else:
        abstract = jax.eval_shape(lambda p: TrainState.create(p, optimizer, trainable), params)
        state = restore_state(path, abstract, **place)
    step = make_train_step(
        skeleton,
        optimizer,
        Objective.from_config(config),
        trainable=trainable,
        schedule=schedule,
        augmentation=config.augment.to_dict(),
        seed=config.seed,
        micro_batches=micro_batches,
        skip_nonfinite=config.on_nonfinite == "skip",
        platform=platform,
    )
    where = jax.tree.map(lambda x: x.sharding, state)
    return Run(
        config=config,
        workdir=workdir,
        mesh=mesh,
        problem=problem,
        skeleton=skeleton,
        batches=batches,
        table=jax.device_put(CategoryTable.of(problem.table), replicated(mesh)),
        step=jax.jit(
            step,
            donate_argnums=0,
            out_shardings=(where, replicated(mesh)),
            compiler_options=platform.compiler_options(deterministic=config.deterministic),
        ),
        state=state,
        metadata=checkpoint.Metadata(
            model=skeleton.config.to_dict(),
            schema=problem.train.schema.to_dict(),
            wording=problem.train.wording.to_dict(),
            template=config.template,
            traits=dict(problem.train.traits),
            categories=checkpoint.pack_categories(problem.table.attributes),
            words=words,
            config=as_json(config),
            dataset=dataset,
        ),
        notes=notes,
    )


def load_problem(config: ConfigDict, dataset: Dataset) -> Problem:
    """Load the configured parts of a prepared dataset.

    Raises:
        ValueError: a split is empty or smaller than a batch, or a sentence is too long.
    """
    train, validation = load_splits(config, dataset)
    if len(train) < config.batch_size:
        raise ValueError(
            f"the training split of {config.dataset} has {len(train)} images, fewer than "
            f"config.batch_size={config.batch_size}"
        )
    attributes, category = categories(train.attributes)
    template = PromptTemplate(train.schema, config.template, train.wording)
    shares = config.sentences
    table = build_text_table(
        attributes,
        template,
        variants=shares.variants,
        variation=Variation(**{f.name: shares[f.name] for f in dataclasses.fields(Variation)}),
        seed=config.seed,
    )
    return Problem(train, category, table, template, validation)


def load_splits(config: ConfigDict, dataset: Dataset) -> tuple[Split, Split | None]:
    """The split to train on, and the one to validate on, if there is one."""
    train = dataset.split("train")
    if config.selection == "test":
        return train, dataset.split("test")
    if config.validation_categories:
        return hold_out_categories(train, config.validation_categories, seed=config.seed)
    if config.selection == "validation" and dataset.has("val"):
        return train, dataset.split("val")
    return train, None


def initial_parameters(
    config: ConfigDict, table: UInt8[np.ndarray, "category attributes"], mesh: Mesh
) -> tuple[AIMA, Parameters]:
    """The abstract model, and its parameters: random, from weights or from another run.

    Weights are a CLIP or a complete model, which also determines the depth of the fusion module.
    Another run's model is used unchanged, its classifier only for the same categories.

    Args:
        config: of the run.
        table: the bits of its training categories.
        mesh: where the parameters are placed.

    Raises:
        FileNotFoundError: weights or run do not exist.
        ValueError: they do not match the config; see `load_pretrained`.
    """
    platform, num_categories = platform_of(mesh), len(table)
    pretrained: Parameters = {}
    fusion_depth = config.model.fusion_depth
    patch_stride = config.model.patch_stride or None
    said = ("activation", "vision_heads", "text_heads", "pixel_mean", "pixel_std")
    towers = {name: config.model[name] or None for name in said}
    if config.weights and not config.init_from:
        loaded = load_pretrained(
            config.weights,
            num_categories=num_categories,
            image_size=config.image_size,
            patch_stride=patch_stride,
            position_resize=config.model.position_resize,
            trust_weights=config.trust_weights,
            mesh=mesh,
            seed=config.seed,
            **towers,
        )
        if isinstance(loaded, CLIP):
            clip_config = loaded.config
            pretrained = {f"clip.{name}": value for name, value in flatten(loaded).items()}
        else:
            clip_config, fusion_depth = loaded.config.clip, loaded.config.fusion_depth
            pretrained = flatten(loaded)
    elif config.init_from:
        restored = checkpoint.load_model(config.init_from, mesh=mesh)
        other = restored.model.config
        if other.clip.image_size != tuple(config.image_size):
            raise ValueError(
                f"config.init_from={config.init_from!r} is a model for image_size="
                f"{other.clip.image_size}, not {tuple(config.image_size)}; set config.image_size"
            )
        clip_config, fusion_depth = other.clip.with_towers(**towers), other.fusion_depth
        pretrained = flatten(restored.model)
        if not np.array_equal(restored.categories, table):
            pretrained = {n: x for n, x in pretrained.items() if not n.startswith("classifier.")}
    else:
        clip_config = CLIPConfig.preset(
            config.model.variant, image_size=config.image_size, patch_stride=patch_stride
        ).with_towers(**towers)
    clip_config = dataclasses.replace(
        clip_config,
        dtype=compute_dtype(config.dtype, platform),
        scan_layers=config.model.scan_layers,
        remat=config.model.remat,
    )
    model_config = AIMAConfig(clip_config, num_categories, fusion_depth)

    def create() -> AIMA:
        return AIMA(model_config, rngs=nnx.Rngs(config.seed), platform=platform)

    skeleton = nnx.eval_shape(create)
    shapes = flatten(skeleton)
    shardings = state_shardings(shapes, mesh, config.mesh.min_shard_elements)
    params = {name: jax.device_put(x, shardings[name]) for name, x in pretrained.items()}
    if shapes.keys() - params.keys():
        # Not under jit: compiled into one program, initialisation takes minutes on a GPU.
        drawn = flatten(create())
        for name in shapes.keys() - params.keys():
            params[name] = put_array(np.asarray(drawn.pop(name)), shardings[name])
    return skeleton, {name: params[name] for name in shapes}


def initial_state(
    params: Parameters,
    optimizer: optax.GradientTransformation,
    trainable: frozenset[str],
    *,
    mesh: Mesh,
    min_shard_elements: int,
) -> TrainState:
    """The state before the first step; optimizer moments are sharded like their parameters."""
    create = partial(TrainState.create, optimizer=optimizer, trainable=trainable)
    shardings = state_shardings(jax.eval_shape(create, params), mesh, min_shard_elements)
    return jax.jit(create, out_shardings=shardings, donate_argnums=0)(params)


def compute_dtype(name: str, platform: Platform) -> str:
    """Resolve `config.dtype`: "auto" is bfloat16 on accelerators and float32 on a CPU."""
    if name == "auto":
        return "float32" if platform.kind == "cpu" else "bfloat16"
    return name


def known_words(config: ConfigDict, table: TextTable) -> dict[str, Any]:
    """The words known to a text tower: whether a CLIP's, and the tokens of its training."""
    words = {"from_clip": bool(config.weights), "trained": []}
    if config.weights and (exported := exported_words(config.weights)):
        words = exported
    if config.init_from:
        words = checkpoint.read_metadata(checkpoint.find_checkpoint(config.init_from)).words
    sentences = table.tokens.reshape(-1, table.tokens.shape[-1])
    ends = np.argmax(sentences == END_TOKEN, axis=1)
    said = sentences[np.arange(sentences.shape[1]) <= ends[:, None]]
    return {**words, "trained": np.union1d(words["trained"], said).astype(int).tolist()}


def _micro_batches(config: ConfigDict, mesh: Mesh) -> int:
    """The number of parts in which a batch is encoded; check that devices and parts divide it."""
    size = config.micro_batch_size or config.batch_size
    if config.batch_size % mesh.size:
        raise ValueError(
            f"config.batch_size={config.batch_size} is not a multiple of the {mesh.size} devices"
        )
    if config.batch_size % size or size % mesh.size:
        raise ValueError(
            f"config.micro_batch_size={size} must divide config.batch_size={config.batch_size}, "
            f"and be a multiple of the {mesh.size} devices"
        )
    return config.batch_size // size
