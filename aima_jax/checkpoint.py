"""Reading checkpoints, which are verified before use and need nothing but their own folder.

A checkpoint is a folder, `checkpoints/<step>/` in a workdir or another, in Orbax's layout with two
items: `params`, and `train`, which only training needs. Its `MANIFEST.json` is written last: it
describes the model, and has a checksum of every file. A folder without it is an incomplete save.
The manifest's format has a version number.
"""

import base64
import dataclasses
import logging
import math
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8

from aima_jax.attributes import AttributeSchema
from aima_jax.files import (
    checksums,
    compare,
    read_sealed_json,
    user_path,
    write_sealed_json,
)
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.parameters import bind, flatten
from aima_jax.platform import Platform, platform_of
from aima_jax.sharding import make_mesh, state_shardings
from aima_jax.text import PromptTemplate, Wording

FORMAT = 2
FOLDER = "checkpoints"
MANIFEST = "MANIFEST.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Restored:
    """A model read from a checkpoint or an exported file, with everything needed for search.

    Attributes:
        model: with its parameters.
        config: of the run that trained it, as data.
        schema: of its attributes.
        wording: of its attributes.
        template: of its training.
        traits: of its dataset: {"cameras": bool, "query_folder": str or None, "identities": bool}.
        categories: the bits of its training categories, in the order of its classifier.
        words: {"from_clip": whether its words come from a CLIP, "trained": token ids it has seen}.
        dataset: {"name", "checksum", "categories"} of its training split.
        model_id: see `aima_jax.parameters.model_id`.
        step: after which it was saved.
        path: where it was read from.
    """

    model: AIMA
    config: Mapping[str, Any]
    schema: AttributeSchema
    wording: Wording
    template: PromptTemplate
    traits: Mapping[str, Any]
    categories: UInt8[np.ndarray, "category attributes"]
    words: Mapping[str, Any]
    dataset: Mapping[str, Any]
    model_id: str
    step: int
    path: pathlib.Path


@dataclass(frozen=True)
class Metadata:
    """The metadata of a checkpoint or an exported file, as plain JSON data.

    The fields are as in `Restored`, except that `categories` are packed bits in base64, as
    returned by `pack_categories`, and `model` is an `AIMAConfig`.
    """

    model: Mapping[str, Any]
    schema: Mapping[str, Any]
    wording: Mapping[str, Any]
    template: str
    traits: Mapping[str, Any]
    categories: str
    words: Mapping[str, Any]
    config: Mapping[str, Any]
    dataset: Mapping[str, Any] = field(default_factory=dict)
    model_id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The metadata as JSON data, with its format number."""
        return {"format": FORMAT} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: pathlib.Path) -> "Metadata":
        """Read metadata from `to_dict`, ignoring other entries.

        Raises:
            ValueError: it has another format; the message names `path` and what to do.
        """
        found = data.get("format", 1)
        if found == 1:
            raise ValueError(
                f"{path} has format 1, which this version does not read; convert it once: "
                f"aima convert checkpoint {path}"
            )
        if found != FORMAT:
            raise ValueError(
                f"{path} has format {found}, but this version reads format {FORMAT}; use a newer "
                "version of aima-jax"
            )
        return cls(**{one.name: data[one.name] for one in dataclasses.fields(cls)})

    def abstract_model(self, platform: Platform | None = None) -> AIMA:
        """The model without its parameters."""
        config = AIMAConfig.from_dict(self.model)
        return nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0), platform=platform))

    def restored(self, model: AIMA, *, step: int, path: pathlib.Path) -> Restored:
        """The metadata combined with the model that was read."""
        schema = AttributeSchema.from_dict(self.schema)
        wording = Wording.from_dict(self.wording)
        return Restored(
            model=model,
            config=self.config,
            schema=schema,
            wording=wording,
            template=PromptTemplate(schema, self.template, wording),
            traits=self.traits,
            categories=unpack_categories(self.categories, schema.size),
            words=self.words,
            dataset=self.dataset,
            model_id=self.model_id,
            step=step,
            path=path,
        )


class Selected(NamedTuple):
    """The checkpoint chosen by `select`, and why.

    Attributes:
        path: its folder.
        reason: "best validation Rank-1", "newest" or "newest: none validated".
        passed_over: a line for each damaged one that would have been chosen.
    """

    path: pathlib.Path
    reason: str
    passed_over: tuple[str, ...]


def load_model(run: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Restored:
    """Read the model from a workdir's best checkpoint (see `select`), or from one checkpoint.

    Args:
        run: a workdir, or a checkpoint's folder, whatever its name; links are followed.
        mesh: where the parameters are placed; all devices by default.

    Raises:
        FileNotFoundError: there is no checkpoint, or no sound one.
        ValueError: the given checkpoint is damaged, or has another format.
    """
    path = find_checkpoint(run)
    metadata = read_metadata(path)
    mesh = mesh or make_mesh()
    skeleton = metadata.abstract_model(platform_of(mesh))
    rule = metadata.config["mesh"]["min_shard_elements"]
    params = load_items(path, {"params": flatten(skeleton)}, mesh, rule)["params"]
    model = bind(skeleton, params)
    return metadata.restored(model, step=step_of(path), path=path)


def find_checkpoint(run: str | os.PathLike[str]) -> pathlib.Path:
    """Return the sound checkpoint to use for a workdir or a checkpoint's folder.

    Raises:
        FileNotFoundError: there is no checkpoint, or no sound one.
        ValueError: the given checkpoint is damaged.
    """
    path = user_path(run).resolve()
    if not is_checkpoint(path):
        return select(path).path
    if problems := damage(path):
        raise ValueError(f"the checkpoint {path} is damaged: {'; '.join(problems[:3])}")
    return path


def is_run(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a workdir or a checkpoint, by its content."""
    folder = user_path(path)
    return (folder / FOLDER).is_dir() or is_checkpoint(folder)


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Return whether a folder is a checkpoint, sound or not, by its content."""
    return any((folder / name).exists() for name in (MANIFEST, "_CHECKPOINT_METADATA"))


def select(workdir: pathlib.Path, *, best: bool = True) -> Selected:
    """Choose the sound checkpoint with the best validation Rank-1, or the newest without one.

    Args:
        workdir: of the run.
        best: False: choose the newest.

    Raises:
        FileNotFoundError: there is none; the message names the damaged ones.
    """
    folder = workdir / FOLDER
    scores = {step: score(folder / str(step)) for step in steps(workdir)}
    order = best_first(scores) if best else sorted(scores, reverse=True)
    rejected = []
    for step in order:
        path = folder / str(step)
        if not (problems := damage(path)):
            validated = "best validation Rank-1" if scores[step] >= 0 else "newest: none validated"
            reason = validated if best else "newest"
            return Selected(path, reason, tuple(rejected))
        rejected.append(f"{path} is damaged: {'; '.join(problems[:3])}")
        _log.warning("passed over the checkpoint %s", rejected[-1])
    raise FileNotFoundError(
        f"no sound checkpoint in {folder}: train first, or check the path"
        + "".join(f"\n  {line}" for line in rejected)
    )


def best_first(scores: Mapping[int, float]) -> list[int]:
    """Sort steps by their validation Rank-1, the best first; ties by latest step.

    Everything that needs the best checkpoint uses this.
    """
    return sorted(scores, key=lambda step: (scores[step], step), reverse=True)


def steps(workdir: pathlib.Path) -> list[int]:
    """Steps of all checkpoints of a workdir, sound or not, in ascending order."""
    names = (path.name for path in (workdir / FOLDER).glob("*") if is_checkpoint(path))
    # Not "08" or "8 copy": those are the user's own folders.
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def score(path: pathlib.Path) -> float:
    """The validation Rank-1 of a checkpoint, -1 if it was saved without.

    It is infinite if the manifest is damaged, so that it is not passed over silently.
    """
    try:
        metrics = read_sealed_json(path / MANIFEST)["metrics"] or {}
    except (FileNotFoundError, ValueError, KeyError):
        return math.inf
    return float(metrics.get("R1", -1))


def is_sealed(path: pathlib.Path) -> bool:
    """Whether a checkpoint was saved completely."""
    return (path / MANIFEST).exists()


def damage(path: pathlib.Path) -> list[str]:
    """Problems of a checkpoint's files; none if it is sound."""
    try:
        expected = read_sealed_json(path / MANIFEST)["files"]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing: the save was cut off"]
    except (ValueError, KeyError):
        return [f"{MANIFEST} has changed since it was written"]
    return compare(path, expected, leave_out=MANIFEST)


def seal(
    path: pathlib.Path,
    metadata: Metadata,
    *,
    step: int,
    metrics: Mapping[str, float] | None,
) -> None:
    """Mark a checkpoint as complete; everything else must already be there.

    Args:
        path: its folder.
        metadata: of the checkpoint.
        step: after which it was saved.
        metrics: of its validation, if there was one.
    """
    files = checksums(path, leave_out=MANIFEST)
    content = {**metadata.to_dict(), "step": step, "metrics": metrics, "files": files}
    write_sealed_json(path / MANIFEST, content)


def read_metadata(path: pathlib.Path) -> Metadata:
    """Read the metadata of a sound checkpoint.

    Raises:
        ValueError: it has another format.
    """
    return Metadata.from_dict(read_sealed_json(path / MANIFEST), path)


def step_of(path: pathlib.Path) -> int:
    """The step after which a sound checkpoint was saved."""
    return read_sealed_json(path / MANIFEST)["step"]


def load_items(
    path: pathlib.Path, items: Mapping[str, Any], mesh: Mesh, min_shard_elements: int
) -> dict[str, Any]:
    """Read items of a checkpoint into trees of shapes, each array directly to its devices."""
    from orbax.checkpoint import v1 as ocp

    shardings = state_shardings(items, mesh, min_shard_elements)
    abstract = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), items, shardings
    )
    return ocp.load_checkpointables(str(path), abstract)


def pack_categories(categories: UInt8[np.ndarray, "category attributes"]) -> str:
    """Pack the bits of each category into bytes, and all of them into base64."""
    return base64.b64encode(np.packbits(categories, axis=1).tobytes()).decode()


def unpack_categories(packed: str, size: int) -> UInt8[np.ndarray, "category attributes"]:
    """Unpack the result of `pack_categories` for a schema with `size` attributes."""
    rows = np.frombuffer(base64.b64decode(packed), np.uint8).reshape(-1, -(-size // 8))
    return np.unpackbits(rows, axis=1, count=size)
