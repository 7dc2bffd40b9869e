"""Reading checkpoints: verified before use, and needing nothing but their own folder.

`checkpoints/<step>/` is Orbax's layout with two items, `params` and `train` (what only training
needs), and with the description of the model as metadata. `MANIFEST.json` in it is written last and
has a checksum of every file; a folder without it is a save that was cut off.
"""

import logging
import math
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from aima_jax.attributes import AttributeSchema
from aima_jax.files import compare, read_sealed_json
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.parameters import bind, flatten
from aima_jax.platform import Platform, platform_of
from aima_jax.sharding import make_mesh, state_shardings
from aima_jax.text import PromptTemplate, Wording

FOLDER = "checkpoints"
MANIFEST = "MANIFEST.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself, as plain JSON data in its metadata."""

    model: Mapping[str, Any]
    schema: Mapping[str, Any]
    wording: Mapping[str, Any]
    template: str
    config: Mapping[str, Any]
    dataset: Mapping[str, Any] = field(default_factory=dict)

    def abstract_model(self, platform: Platform | None = None) -> AIMA:
        """The model without its parameters."""
        config = AIMAConfig.from_dict(self.model)
        return nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0), platform=platform))


@dataclass(frozen=True)
class Restored:
    """A model read from a checkpoint, with all that is needed to ask it something."""

    model: AIMA
    config: Mapping[str, Any]
    schema: AttributeSchema
    template: PromptTemplate
    step: int
    path: pathlib.Path


def load_model(workdir_or_checkpoint: str | pathlib.Path, *, mesh: Mesh | None = None) -> Restored:
    """Reads the model of a workdir, its best checkpoint if there is one, or of one checkpoint.

    Args:
        workdir_or_checkpoint: a run's folder, or one folder of its `checkpoints/`.
        mesh: where the parameters are placed; all devices by default.

    Raises:
        FileNotFoundError: there is no checkpoint, or no sound one.
        ValueError: the checkpoint that was named is damaged.
    """
    path = pathlib.Path(workdir_or_checkpoint).resolve()
    if path.parent.name == FOLDER:
        if problems := damage(path):
            raise ValueError(f"the checkpoint {path} is damaged: {'; '.join(problems[:3])}")
    else:
        path = select(path)
    description = describe(path)
    mesh = mesh or make_mesh()
    skeleton = description.abstract_model(platform_of(mesh))
    rule = description.config["mesh"]["min_shard_elements"]
    params = load_items(path, {"params": flatten(skeleton)}, mesh, rule)["params"]
    schema = AttributeSchema.from_dict(description.schema)
    wording = Wording.from_dict(description.wording)
    template = PromptTemplate(schema, description.template, wording)
    model = bind(skeleton, params)
    return Restored(model, description.config, schema, template, int(path.name), path)


def select(workdir: pathlib.Path, *, best: bool = True) -> pathlib.Path:
    """Chooses the sound checkpoint with the best validation Rank-1, or the newest without one.

    Raises:
        FileNotFoundError: there is none; the message names those that are damaged.
    """
    paths = best_first(workdir)
    if not best:
        paths.sort(key=lambda path: int(path.name), reverse=True)
    rejected = []
    for path in paths:
        problems = damage(path)
        if not problems:
            return path
        rejected.append(f"\n  damaged: {path}: {'; '.join(problems[:3])}")
        _log.warning("passed over the damaged checkpoint %s: %s", path, "; ".join(problems[:3]))
    raise FileNotFoundError(
        f"no sound checkpoint in {workdir / FOLDER}: train first, or check --workdir"
        + "".join(rejected)
    )


def steps(workdir: pathlib.Path) -> list[int]:
    """Steps of all checkpoint folders of a workdir, sound or not, in ascending order."""
    folder = workdir / FOLDER
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def best_first(workdir: pathlib.Path) -> list[pathlib.Path]:
    """A workdir's checkpoints, sound or not, by their `score` and then by step."""
    paths = [workdir / FOLDER / str(step) for step in reversed(steps(workdir))]
    return sorted(paths, key=score, reverse=True)


def score(path: pathlib.Path) -> float:
    """The validation Rank-1 of a checkpoint, -1 if it was saved without.

    It is infinite where the manifest is damaged: whoever looks for the best must hear of it.
    """
    try:
        metrics = read_sealed_json(path / MANIFEST)["metrics"] or {}
    except (FileNotFoundError, ValueError, KeyError):
        return math.inf
    return metrics.get("R1", -1)


def is_sealed(path: pathlib.Path) -> bool:
    """Whether a checkpoint was saved to the end."""
    return (path / MANIFEST).exists()


def damage(path: pathlib.Path) -> list[str]:
    """What is wrong with a checkpoint's files, nothing if it is sound."""
    try:
        expected = read_sealed_json(path / MANIFEST)["files"]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing: the save was cut off"]
    except (ValueError, KeyError):
        return [f"{MANIFEST} is not what was written"]
    return compare(path, expected, leave_out=MANIFEST)


def describe(path: pathlib.Path) -> Description:
    """Reads what a sound checkpoint says of itself."""
    from orbax.checkpoint import v1 as ocp

    return Description(**ocp.checkpointables_metadata(path).custom_metadata)


def load_items(
    path: pathlib.Path, items: Mapping[str, Any], mesh: Mesh, min_shard_elements: int
) -> dict[str, Any]:
    """Reads items of a checkpoint into trees of shapes, each array straight to its place."""
    from orbax.checkpoint import v1 as ocp

    shardings = state_shardings(items, mesh, min_shard_elements)
    abstract = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), items, shardings
    )
    return ocp.load_checkpointables(path, abstract)
