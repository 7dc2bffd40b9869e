"""A model's parameters as one flat dict, "clip.vision.blocks.0.attention.query.kernel" to array."""

from typing import TypeVar

from flax import nnx
from jaxtyping import Array

Parameters = dict[str, Array]
Model = TypeVar("Model", bound=nnx.Module)


def flatten(model: nnx.Module) -> Parameters:
    """The parameters of a model by their dotted path, in a fixed order."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}


def bind(model: Model, params: Parameters) -> Model:
    """A copy of a model, which may be abstract, with these parameters in place of its own."""
    graph, state = nnx.split(model)
    flat = [
        (path, variable.replace(params[".".join(map(str, path))]))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))
