"""Where a run starts: the model and the state before its first step, on the mesh."""

import dataclasses
import pathlib
from functools import partial

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aima_jax import checkpoint
from aima_jax.convert import load_pretrained
from aima_jax.models import AIMA, CLIP, AIMAConfig, CLIPConfig
from aima_jax.parameters import Parameters, flatten
from aima_jax.platform import Platform, platform_of
from aima_jax.sharding import put_whole, state_shardings
from aima_jax.training.step import TrainState


def initial_parameters(
    config: ConfigDict, num_categories: int, mesh: Mesh
) -> tuple[AIMA, Parameters]:
    """The abstract model, and its parameters: random, from weights or from another run.

    Weights are CLIP's, or those of a whole model, which have a depth of the fusion module too.

    Raises:
        FileNotFoundError: weights or run are not there.
        ValueError: they do not fit; see `load_pretrained`.
    """
    platform = platform_of(mesh)
    pretrained: Parameters = {}
    fusion_depth = config.model.fusion_depth
    patch_stride = config.model.patch_stride or None
    towers = {
        name: config.model[name] or None for name in ("activation", "vision_heads", "text_heads")
    }
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
    if config.init_from:
        pretrained = _other_run(pathlib.Path(config.init_from), shapes, mesh)
    params = {name: jax.device_put(x, shardings[name]) for name, x in pretrained.items()}
    if shapes.keys() - params.keys():
        # Not under jit: compiled into one program, the draws take minutes on a GPU.
        drawn = flatten(create())
        for name in shapes.keys() - params.keys():
            params[name] = put_whole(np.asarray(drawn.pop(name)), shardings[name])
    return skeleton, {name: params[name] for name in shapes}


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


def compute_dtype(name: str, platform: Platform) -> str:
    """Resolves `config.dtype`: "auto" is bfloat16 on accelerators and float32 on a CPU."""
    if name == "auto":
        return "float32" if platform.kind == "cpu" else "bfloat16"
    return name


def _other_run(workdir: pathlib.Path, shapes: Parameters, mesh: Mesh) -> Parameters:
    """Another run's parameters, without an identity classifier of another size."""
    loaded = flatten(checkpoint.load_model(workdir, mesh=mesh).model)
    fitting = {
        name: value
        for name, value in loaded.items()
        if name in shapes and shapes[name].shape == value.shape
    }
    names = loaded.keys() | shapes.keys()
    if misfits := [n for n in names if n not in fitting and not n.startswith("classifier.")]:
        raise ValueError(
            f"config.init_from={str(workdir)!r} is another model: "
            f"{', '.join(sorted(misfits)[:5])} do not fit ({len(misfits)} parameters); "
            "use its model.* and image_size"
        )
    return fitting
