"""Where a run starts: the model and the state before its first step, born on the mesh."""

import dataclasses
import pathlib
from functools import partial

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aima_jax import checkpoint
from aima_jax.convert import load_clip
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig
from aima_jax.parameters import Parameters, flatten
from aima_jax.sharding import state_shardings
from aima_jax.training.step import TrainState


def initial_parameters(
    config: ConfigDict, num_categories: int, mesh: Mesh
) -> tuple[AIMA, Parameters]:
    """The abstract model, and its parameters: random, from CLIP's weights or from another run.

    Raises:
        FileNotFoundError: weights or run are not there.
        ValueError: they do not fit; see `load_clip`.
    """
    pretrained: Parameters = {}
    if config.weights and not config.init_from:
        clip_config, clip = load_clip(
            config.weights,
            image_size=config.image_size,
            patch_stride=config.model.patch_stride or None,
            position_resize=config.model.position_resize,
            trust_weights=config.trust_weights,
            mesh=mesh,
        )
        pretrained = {f"clip.{name}": value for name, value in flatten(clip).items()}
    else:
        clip_config = CLIPConfig.preset(
            config.model.variant,
            image_size=config.image_size,
            patch_stride=config.model.patch_stride or None,
        )
    clip_config = dataclasses.replace(
        clip_config,
        dtype=compute_dtype(config.dtype),
        scan_layers=config.model.scan_layers,
        remat=config.model.remat,
    )
    model_config = AIMAConfig(clip_config, num_categories, config.model.fusion_depth)

    def create() -> AIMA:
        return AIMA(model_config, rngs=nnx.Rngs(config.seed))

    skeleton = nnx.eval_shape(create)
    shapes = flatten(skeleton)
    shardings = state_shardings(shapes, mesh, config.mesh.min_shard_elements)
    params = jax.jit(lambda: flatten(create()), out_shardings=shardings)()
    if config.init_from:
        pretrained = _other_run(pathlib.Path(config.init_from), params, mesh)
    for name, value in pretrained.items():
        params[name] = jax.device_put(value, shardings[name])
    return skeleton, params


def initial_state(
    params: Parameters,
    optimizer: optax.GradientTransformation,
    trainable: frozenset[str],
    *,
    mesh: Mesh,
    min_shard_elements: int,
) -> TrainState:
    """The state before the first step; the optimizer's moments lie where their parameters lie."""
    create = partial(TrainState.create, optimizer=optimizer, trainable=trainable)
    shardings = state_shardings(jax.eval_shape(create, params), mesh, min_shard_elements)
    return jax.jit(create, out_shardings=shardings, donate_argnums=0)(params)


def compute_dtype(name: str) -> str:
    """Resolves `config.dtype`: "auto" is bfloat16 on accelerators and float32 on a CPU."""
    if name == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return name


def _other_run(workdir: pathlib.Path, params: Parameters, mesh: Mesh) -> Parameters:
    """Another run's parameters, without an identity classifier of another size."""
    loaded = flatten(checkpoint.load_model(workdir, mesh=mesh).model)
    fitting = {
        name: value
        for name, value in loaded.items()
        if name in params and params[name].shape == value.shape
    }
    names = loaded.keys() | params.keys()
    if misfits := [n for n in names if n not in fitting and not n.startswith("classifier.")]:
        raise ValueError(
            f"config.init_from={str(workdir)!r} is another model: "
            f"{', '.join(sorted(misfits)[:5])} do not fit ({len(misfits)} parameters); "
            "use its model.* and image_size"
        )
    return fitting
