"""A model in plain PyTorch, as one file of code and one of weights; and UPAR Challenge submissions.

`aima_clip.py` and `run.py` beside this file are copied verbatim; nothing here imports them.
"""

import importlib.resources
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Sequence

import numpy as np

from aima_jax.checkpoint import Restored
from aima_jax.convert.weights import write_safetensors
from aima_jax.files import atomic_write, user_path
from aima_jax.models import ViTConfig
from aima_jax.parameters import flatten

_CODE = "aima_clip.py"
_WEIGHTS = "model.safetensors"
_MERGES = "bpe_simple_vocab_16e6.txt.gz"


def save_pytorch(
    restored: Restored, folder: str | os.PathLike[str], *, columns: Sequence[str] = ()
) -> None:
    """Write both towers, the tokenizer and the sentences for PyTorch: `aima_clip.load` reads them.

    Args:
        restored: the model, with any image size and patch stride.
        folder: created if necessary; files of the same names are replaced.
        columns: other names for the attributes, in order.

    Raises:
        ValueError: the image tower is a ResNet.
        OSError: the folder cannot be written to.
    """
    clip = restored.model.clip
    if not isinstance(clip.config.vision, ViTConfig):
        raise ValueError(
            f"{restored.path}: its image tower is a ResNet; the PyTorch module supports only a "
            "vision transformer"
        )
    arrays = dict(_as_pytorch(name, np.asarray(a)) for name, a in flatten(clip).items())
    merges = importlib.resources.files("aima_jax.text").joinpath(_MERGES).read_bytes()
    arrays["tokenizer.merges"] = np.frombuffer(merges, np.uint8)
    config = clip.config.to_dict() | {
        "schema": restored.schema.to_dict(),
        "wording": restored.wording.to_dict(),
        "template": restored.template.name,
        "columns": list(columns or restored.schema.names),
    }
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / _CODE) as temporary:
        temporary.write_bytes(_source(_CODE))
    write_safetensors(folder / _WEIGHTS, arrays, {"aima_clip": json.dumps(config)})


def save_submission(
    restored: Restored, path: str | os.PathLike[str], *, columns: Sequence[str]
) -> None:
    """Write a ZIP with `run.py` at the top level, for the UPAR Challenge's runner.

    Args:
        restored: a model with the attributes of the challenge.
        path: of the file.
        columns: the challenge's names for the attributes, in the schema's order.

    Raises:
        ValueError, OSError: as `save_pytorch`.
    """
    path = user_path(path)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        save_pytorch(restored, folder, columns=columns)
        (folder / "run.py").write_bytes(_source("run.py"))
        with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)


def _source(name: str) -> bytes:
    return importlib.resources.files("aima_jax.convert.pytorch").joinpath(name).read_bytes()


def _as_pytorch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A parameter with PyTorch's name and layout."""
    array = array.astype(np.float32)
    if name.endswith(".kernel"):
        array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
    name = name.replace("token_embedding", "token_embedding.weight")
    for ours in (".kernel", ".scale"):
        name = name.replace(ours, ".weight")
    return name, np.ascontiguousarray(array)
