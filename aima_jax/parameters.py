"""A model's parameters as a flat dict: "clip.vision.blocks.0.attention.query.kernel" to array."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Shaped

Parameters = dict[str, Array | jax.ShapeDtypeStruct]  # of an abstract model, abstract arrays
Model = TypeVar("Model", bound=nnx.Module)


class Statistic(nnx.Variable):
    """An array that comes with pretrained weights and is never trained, such as a running mean."""


def flatten(model: nnx.Module) -> Parameters:
    """The parameters and statistics of a model by their dotted path, in a fixed order."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, Statistic)))
    return {_name(path): variable.get_value() for path, variable in flat}


def statistic_names(model: nnx.Module) -> frozenset[str]:
    """The names among those of `flatten` that no optimizer may change."""
    return frozenset(_name(path) for path, _ in nnx.to_flat_state(nnx.state(model, Statistic)))


def bind(model: Model, params: Parameters) -> Model:
    """A copy of a model, which may be abstract, with these arrays in place of its own."""
    graph, state = nnx.split(model)
    flat = [
        (path, variable.replace(params[_name(path)])) for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def model_id(
    params: Mapping[str, Shaped[np.ndarray, "..."]],
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
) -> str:
    """SHA-256 over sorted names, shapes, bytes and pixel statistics, which identifies a model.

    A checkpoint and its exports have the same.

    Args:
        params: as from `flatten`, on the host and complete.
        pixel_mean: of the image tower's config.
        pixel_std: likewise.
    """
    digest = hashlib.sha256(json.dumps([[*pixel_mean], [*pixel_std]]).encode())
    for name in sorted(params):
        digest.update(json.dumps([name, params[name].shape]).encode())
        digest.update(np.ascontiguousarray(params[name]).data)
    return digest.hexdigest()


def _name(path: Iterable[Hashable]) -> str:
    return ".".join(map(str, path))
