"""A model's parameters as one flat dict, "clip.vision.blocks.0.attention.query.kernel" to array."""

from typing import TypeVar

from flax import nnx
from jaxtyping import Array

Parameters = dict[str, Array]
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


def _name(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))
