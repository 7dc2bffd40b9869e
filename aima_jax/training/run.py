"""A run made ready: data, model, optimizer and the jitted step, new or resumed."""

import pathlib
from dataclasses import dataclass

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aima_jax import checkpoint
from aima_jax.data import TrainBatches
from aima_jax.distributed import from_first_host
from aima_jax.models import AIMA
from aima_jax.parameters import flatten, statistic_names
from aima_jax.platform import platform_of
from aima_jax.prepared import prepared_folder
from aima_jax.sharding import make_mesh, replicated
from aima_jax.training.optimizer import learning_rate_schedule, make_optimizer, trainable_names
from aima_jax.training.problem import Problem, load_problem
from aima_jax.training.saving import clear_damaged, restore
from aima_jax.training.start import initial_parameters, initial_state
from aima_jax.training.step import (
    CategoryTable,
    Objective,
    TrainState,
    make_train_step,
)
from aima_jax.workdir import plain


@dataclass(frozen=True)
class Run:
    """What training and replaying share; `notes` are for the person who started it.

    `step` is jitted, and donates the state that it is given.
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
    description: checkpoint.Description
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
    """Makes a run ready, from its newest sound checkpoint or from the start.

    Raises:
        FileNotFoundError: dataset, weights or another run are not where the config says.
        ValueError: they do not fit each other, or the batch does not fit the devices.
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    platform = platform_of(mesh)
    micro_batches = _micro_batches(config, mesh)
    problem = load_problem(config, prepared_folder(config))
    dataset = {
        "name": problem.train.dataset,
        "checksum": problem.train.checksum,
        "categories": len(problem.table.attributes),
    }
    notes = clear_damaged(workdir) if jax.process_index() == 0 else []
    newest = from_first_host(lambda: max(checkpoint.steps(workdir), default=-1))
    path = workdir / checkpoint.FOLDER / str(newest)
    if newest < 0:
        skeleton, params = initial_parameters(config, dataset["categories"], mesh)
    else:
        found = checkpoint.describe(path)
        if found.dataset != dataset:
            raise ValueError(
                f"{config.dataset} has changed since {path} was saved; train in another --workdir"
            )
        skeleton = found.abstract_model(platform)
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
        state = restore(path, abstract, **place)
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
            compiler_options=platform.compiler_options(),
        ),
        state=state,
        description=checkpoint.Description(
            model=skeleton.config.to_dict(),
            schema=problem.train.schema.to_dict(),
            wording=problem.train.wording.to_dict(),
            template=config.template,
            config=plain(config),
            dataset=dataset,
        ),
        notes=notes,
    )


def _micro_batches(config: ConfigDict, mesh: Mesh) -> int:
    """In how many parts a batch is encoded; checks that devices and parts divide it."""
    size = config.micro_batch_size or config.batch_size
    if config.batch_size % mesh.size:
        raise ValueError(
            f"config.batch_size={config.batch_size} does not divide among {mesh.size} devices"
        )
    if config.batch_size % size or size % mesh.size:
        raise ValueError(
            f"config.micro_batch_size={size} must divide config.batch_size={config.batch_size}, "
            f"and be a multiple of the {mesh.size} devices"
        )
    return config.batch_size // size
