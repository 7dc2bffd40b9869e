"""A whole AIMA model in one safetensors file that says of itself what a checkpoint says."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from aima_jax.checkpoint import Metadata, Restored, load_model, pack_categories
from aima_jax.convert.reading import read_model
from aima_jax.convert.weights import Weights, is_safetensors, open_weights, write_safetensors
from aima_jax.files import user_path
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.parameters import flatten, model_id
from aima_jax.sharding import make_mesh

FORMAT = "2"


def save_aima(model: AIMA | Restored, path: str | os.PathLike[str]) -> None:
    """Write a model to one file.

    Args:
        model: one that was restored takes all with it that its checkpoint says, its `model_id`
            among it. A model alone, as of IRRA's code, has nothing but its config: trainings can
            start from it, and nothing can be asked of it.
        path: of the file; its folder is made if need be.

    Raises:
        OSError: it cannot be written.
    """
    whole = model.model if isinstance(model, Restored) else model
    arrays = {name: np.asarray(array) for name, array in flatten(whole).items()}
    if isinstance(model, Restored):
        said = _metadata(model).to_dict() | {"step": model.step}
    else:
        vision = whole.config.clip.vision
        identity = model_id(arrays, vision.pixel_mean, vision.pixel_std)
        said = {"model": whole.config.to_dict(), "model_id": identity}
    write_safetensors(user_path(path), arrays, {"aima": FORMAT, "description": json.dumps(said)})


def load_aima(path: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Restored:
    """Load what `save_aima` wrote of a restored model.

    Args:
        path: the file.
        mesh: the devices that the parameters are spread over; the default device if None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, is not an export of AIMA or one of an older format, or holds a
            model alone.
    """
    weights = open_weights(user_path(path))
    model = read_aima(weights, mesh=mesh)
    said = _said(weights)
    if weights.metadata["aima"] != FORMAT:
        raise ValueError(
            f"{path} is of format {weights.metadata['aima']}, which lacks the wording of its "
            "sentences; export it again from its run: aima convert checkpoint RUN, then "
            f"aima convert aima RUN {path}"
        )
    if "schema" not in said:
        raise ValueError(
            f"{path} holds a model alone, without the attributes that could be asked for: start a "
            f"training from it with --config.weights={path}"
        )
    metadata = Metadata.from_dict(said, weights.path)
    return metadata.restored(model, step=said["step"], path=weights.path)


def restore(run: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Restored:
    """Read the model of a workdir, a checkpoint or an exported file.

    Args:
        run: as of `load_model`, or the path of a file as of `load_aima`.
        mesh: where the parameters are placed; all devices by default.

    Raises:
        FileNotFoundError: there is nothing of the kind.
        ValueError: it is damaged, or of another format.
    """
    if user_path(run).is_file():
        return load_aima(run, mesh=mesh or make_mesh())
    return load_model(run, mesh=mesh)


def exported_words(path: str | os.PathLike[str]) -> Mapping[str, Any] | None:
    """What the words of an exported model are; None where there is no such file."""
    file = user_path(path)
    if not file.is_file() or not is_safetensors(file):
        return None
    weights = open_weights(file)
    if not is_aima(weights):
        return None
    return _said(weights).get("words", {"from_clip": True, "trained": []})  # IRRA's are CLIP's


def read_aima(weights: Weights, *, mesh: Mesh | None = None) -> AIMA:
    """Read the model alone out of a file that `save_aima` wrote.

    Raises:
        ValueError: it is something else, or damaged.
    """
    source = aima_source(weights)
    model = read_model(weights, None, source, source, mesh=mesh)
    assert isinstance(model, AIMA)
    check_identity(weights)
    return model


def is_aima(weights: Weights) -> bool:
    """Whether `save_aima` wrote this file, of this version or an older one."""
    return weights.metadata.get("aima") in ("1", FORMAT)


def aima_source(weights: Weights) -> AIMAConfig:
    """The shape of the model in a file that `save_aima` wrote.

    Raises:
        ValueError: it is something else.
    """
    if not is_aima(weights):
        raise ValueError(
            f"{weights.path} is not a whole AIMA model of format {FORMAT}, as of save_aima"
        )
    try:
        said = _said(weights)
        config = read_aima_config(said["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{weights.path} does not hold the config of an AIMA model: {error}"
        ) from None
    return config


def check_identity(weights: Weights) -> None:
    """Check that the arrays of a file that `save_aima` wrote are those that were written.

    Raises:
        ValueError: they are not.
    """
    if (expected := _said(weights)["model_id"]) is None:
        return
    vision = aima_source(weights).clip.vision
    if model_id(_Arrays(weights), vision.pixel_mean, vision.pixel_std) != expected:
        raise ValueError(
            f"{weights.path} is damaged: its arrays are not those that were written; copy or "
            "export it again"
        )


def read_aima_config(data: Mapping[str, Any]) -> AIMAConfig:
    """The config of a model, also of format 1, where one activation is that of both towers.

    Raises:
        KeyError, TypeError, ValueError: it is not such a config.
    """
    clip = dict(data["clip"])
    activation = clip.pop("activation", None)
    config = AIMAConfig.from_dict({**data, "clip": clip})
    return dataclasses.replace(config, clip=config.clip.with_towers(activation=activation))


class _Arrays(Mapping):
    """The arrays of a checkpoint, of which the last one read is kept."""

    def __init__(self, weights: Weights):
        self._names = weights.shapes
        self._read = functools.lru_cache(maxsize=1)(weights.read)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _said(weights: Weights) -> dict[str, Any]:
    """What a file says of itself."""
    if weights.metadata["aima"] == "1":
        return {"model": json.loads(weights.metadata["config"]), "model_id": None}
    return json.loads(weights.metadata["description"])


def _metadata(restored: Restored) -> Metadata:
    return Metadata(
        model=restored.model.config.to_dict(),
        schema=restored.schema.to_dict(),
        wording=restored.wording.to_dict(),
        template=restored.template.name,
        traits=restored.traits,
        categories=pack_categories(restored.categories),
        words=restored.words,
        config=restored.config,
        dataset=restored.dataset,
        model_id=restored.model_id,
    )
