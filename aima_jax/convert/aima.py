"""A whole AIMA model in one safetensors file that describes itself."""

import json
import pathlib
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from aima_jax.attributes import AttributeSchema
from aima_jax.convert.clip import shapes_of
from aima_jax.convert.files import open_checkpoint
from aima_jax.convert.mapping import check_complete, identity, read_parameters
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.parameters import bind, flatten
from aima_jax.text import PromptTemplate

FORMAT = "1"


@dataclass(frozen=True)
class ExportedAIMA:
    """A model with the attributes it knows and the sentences it was trained on, where it has them.

    IRRA's checkpoints, for one, have neither.
    """

    model: AIMA
    schema: AttributeSchema | None = None
    template: PromptTemplate | None = None


def save_aima(
    model: AIMA,
    path: str | pathlib.Path,
    *,
    schema: AttributeSchema | None = None,
    template: str | None = None,
) -> None:
    """Writes a model, its config, attribute schema and prompt template's name to one file."""
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    metadata = {
        "aima": FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "schema": json.dumps(schema and schema.to_dict()),
        "template": json.dumps(template),
    }
    arrays = {name: np.asarray(array) for name, array in flatten(model).items()}
    unfinished = path.with_name(path.name + ".unfinished")
    save_file(arrays, unfinished, metadata)
    unfinished.replace(path)


def load_aima(path: str | pathlib.Path, *, mesh: Mesh | None = None) -> ExportedAIMA:
    """Loads what `save_aima` wrote.

    Args:
        path: the file.
        mesh: the devices that the parameters are spread over; the default device if None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no export of AIMA.
    """
    checkpoint = open_checkpoint(path)
    metadata = checkpoint.metadata
    if metadata.get("aima") != FORMAT:
        raise ValueError(
            f"{path} is no whole AIMA model of format {FORMAT}, as save_aima writes it"
        )
    config = AIMAConfig.from_dict(json.loads(metadata["config"]))
    skeleton = nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0)))
    expected = shapes_of(skeleton)
    entries = identity(expected)
    check_complete(checkpoint, entries, expected, what="the AIMA model that its config describes")
    model = bind(skeleton, read_parameters(checkpoint, entries, mesh=mesh))
    schema, template = (json.loads(metadata[key]) for key in ("schema", "template"))
    if schema is None:
        return ExportedAIMA(model)
    schema = AttributeSchema.from_dict(schema)
    return ExportedAIMA(model, schema, template and PromptTemplate(schema, template))
