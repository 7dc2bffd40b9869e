"""A whole AIMA model in one safetensors file, with the same metadata as a checkpoint."""

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
        model: a restored model is saved with all its checkpoint's metadata, including `model_id`.
            A bare model, such as IRRA's, has only its config: training can start from it, but it
            cannot be searched with.
        path: of the file; its folder is created if necessary.

    Raises:
        OSError: the file cannot be written.
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
    """Load a restored model that `save_aima` wrote.

    Args:
        path: the file.
        mesh: the devices that the parameters are spread over; the default device if None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, is not an AIMA export, has an older format, or contains a bare
            model.
    """
    weights = open_weights(user_path(path))
    model = read_aima(weights, mesh=mesh)
    said = _said(weights)
    if weights.metadata["aima"] != FORMAT:
        raise ValueError(
            f"{path} has format {weights.metadata['aima']}, which lacks the wording of its "
            "sentences; export it again from its run: aima convert checkpoint RUN, then "
            f"aima convert aima RUN {path}"
        )
    if "schema" not in said:
        raise ValueError(
            f"{path} contains a bare model, without attributes to search for: start training from "
            f"it with --config.weights={path}"
        )
    metadata = Metadata.from_dict(said, weights.path)
    return metadata.restored(model, step=said["step"], path=weights.path)


def restore(run: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Restored:
    """Read the model of a workdir, a checkpoint or an exported file.

    Args:
        run: as for `load_model`, or a file as for `load_aima`.
        mesh: where the parameters are placed; all devices by default.

    Raises:
        FileNotFoundError: no model is found.
        ValueError: it is damaged, or has another format.
    """
    if user_path(run).is_file():
        return load_aima(run, mesh=mesh or make_mesh())
    return load_model(run, mesh=mesh)


def exported_words(path: str | os.PathLike[str]) -> Mapping[str, Any] | None:
    """The `words` of an exported model (see `Restored`); None if there is no such file."""
    file = user_path(path)
    if not file.is_file() or not is_safetensors(file):
        return None
    weights = open_weights(file)
    if not is_aima(weights):
        return None
    return _said(weights).get("words", {"from_clip": True, "trained": []})  # IRRA uses CLIP's


def read_aima(weights: Weights, *, mesh: Mesh | None = None) -> AIMA:
    """Read only the model from a file that `save_aima` wrote.

    Raises:
        ValueError: it is not such a file, or is damaged.
    """
    source = aima_source(weights)
    model = read_model(weights, None, source, source, mesh=mesh)
    assert isinstance(model, AIMA)
    check_identity(weights)
    return model


def is_aima(weights: Weights) -> bool:
    """Whether `save_aima` wrote this file, in this version or an older one."""
    return weights.metadata.get("aima") in ("1", FORMAT)


def aima_source(weights: Weights) -> AIMAConfig:
    """The shape of the model in a file that `save_aima` wrote.

    Raises:
        ValueError: it is not such a file.
    """
    if not is_aima(weights):
        raise ValueError(
            f"{weights.path} is not a whole AIMA model of format {FORMAT}, written by save_aima"
        )
    try:
        said = _said(weights)
        config = read_aima_config(said["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{weights.path} does not contain the config of an AIMA model: {error}"
        ) from None
    return config


def check_identity(weights: Weights) -> None:
    """Check that the arrays of a file are unchanged since `save_aima` wrote it.

    Raises:
        ValueError: an array has changed.
    """
    if (expected := _said(weights)["model_id"]) is None:
        return
    vision = aima_source(weights).clip.vision
    if model_id(_Arrays(weights), vision.pixel_mean, vision.pixel_std) != expected:
        raise ValueError(
            f"{weights.path} is damaged: its arrays have changed since it was written; copy or "
            "export it again"
        )


def read_aima_config(data: Mapping[str, Any]) -> AIMAConfig:
    """The config of a model, also in format 1, where both towers share one activation.

    Raises:
        KeyError, TypeError, ValueError: it is not such a config.
    """
    clip = dict(data["clip"])
    activation = clip.pop("activation", None)
    config = AIMAConfig.from_dict({**data, "clip": clip})
    return dataclasses.replace(config, clip=config.clip.with_towers(activation=activation))


class _Arrays(Mapping):
    """The arrays of a checkpoint; the last one read is cached."""

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
    """The metadata of a file."""
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
