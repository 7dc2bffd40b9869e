"""A whole AIMA model in one safetensors file that describes itself."""

import json
import pathlib
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from aima_jax.attributes import AttributeSchema
from aima_jax.convert.files import Checkpoint, open_checkpoint, write_safetensors
from aima_jax.convert.reading import read_model
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.parameters import flatten
from aima_jax.text import PromptTemplate, Wording

FORMAT = "1"


@dataclass(frozen=True)
class ExportedAIMA:
    """A model, and the template of the sentences it was trained on with its attribute schema.

    A model that was not trained here, as IRRA's, has no template.
    """

    model: AIMA
    template: PromptTemplate | None = None


def save_aima(
    model: AIMA,
    path: str | pathlib.Path,
    *,
    template: PromptTemplate | None = None,
) -> None:
    """Writes a model with its config, attribute schema and prompt template to one file."""
    metadata = {
        "aima": FORMAT,
        "config": json.dumps(model.config.to_dict()),
    }
    if template is not None:
        metadata |= {
            "schema": json.dumps(template.schema.to_dict()),
            "wording": json.dumps(template.wording.to_dict()),
            "template": template.name,
        }
    arrays = {name: np.asarray(array) for name, array in flatten(model).items()}
    write_safetensors(pathlib.Path(path), arrays, metadata)


def load_aima(path: str | pathlib.Path, *, mesh: Mesh | None = None) -> ExportedAIMA:
    """Loads what `save_aima` wrote.

    Args:
        path: the file.
        mesh: the devices that the parameters are spread over; the default device if None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or is not an export of AIMA.
    """
    checkpoint = open_checkpoint(path)
    source = aima_source(checkpoint)
    model = read_model(checkpoint, None, source, source, mesh=mesh)
    metadata = checkpoint.metadata
    if "template" not in metadata:
        return ExportedAIMA(model)
    schema = AttributeSchema.from_dict(json.loads(metadata["schema"]))
    wording = Wording.from_dict(json.loads(metadata["wording"]))
    return ExportedAIMA(model, PromptTemplate(schema, metadata["template"], wording))


def is_aima(checkpoint: Checkpoint) -> bool:
    """Whether `save_aima` wrote this file."""
    return checkpoint.metadata.get("aima") == FORMAT


def aima_source(checkpoint: Checkpoint) -> AIMAConfig:
    """The shape of the model in a file that `save_aima` wrote.

    Raises:
        ValueError: it is something else.
    """
    if not is_aima(checkpoint):
        raise ValueError(
            f"{checkpoint.path} is not a whole AIMA model of format {FORMAT}, as of save_aima"
        )
    try:
        return AIMAConfig.from_dict(json.loads(checkpoint.metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{checkpoint.path} does not hold the config of an AIMA model: {error}"
        ) from None
