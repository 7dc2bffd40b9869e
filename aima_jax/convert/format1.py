"""Conversion of format 1 checkpoints: `aima convert checkpoint RUN`."""

import pathlib
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from aima_jax import checkpoint
from aima_jax.attributes import AttributeSchema
from aima_jax.convert.export import read_aima_config
from aima_jax.data import Split, categories, open_dataset, prepared_folder
from aima_jax.files import read_sealed_json, user_path
from aima_jax.models import AIMA, AIMAConfig
from aima_jax.parameters import flatten, model_id
from aima_jax.sharding import make_mesh, to_first_host
from aima_jax.text import PromptTemplate, build_text_table
from aima_jax.training.setup import known_words, load_splits


def convert_checkpoints(run: str | pathlib.Path) -> list[str]:
    """Rewrite only the manifests of a run's checkpoints, in this version's format.

    Format 1 lacks the wording, the traits and the training categories of its dataset, which must be
    available, prepared or as raw files. A converted model is used like any other; its training can
    be resumed only if the optimizer is still the same.

    Args:
        run: a workdir, or the folder of one checkpoint.

    Returns:
        A line for each checkpoint that says what was done.

    Raises:
        FileNotFoundError: the checkpoint or its dataset is missing.
        ValueError: the dataset is not the one that the model was trained on.
    """
    path = user_path(run).resolve()
    folders = [path]
    if not checkpoint.is_checkpoint(path):
        folders = [path / checkpoint.FOLDER / str(step) for step in checkpoint.steps(path)]
    if not folders:
        raise FileNotFoundError(f"no checkpoint in {path}; name a workdir or a checkpoint")
    return [f"{folder}: {_convert(folder)}" for folder in folders]


def _convert(folder: pathlib.Path) -> str:
    if problems := checkpoint.damage(folder):
        return f"damaged, left unchanged ({'; '.join(problems[:3])})"
    manifest = read_sealed_json(folder / checkpoint.MANIFEST)
    if "format" in manifest:
        return f"already has format {manifest['format']}"
    old = _old_metadata(folder)
    model = read_aima_config(old["model"])
    config = ConfigDict(old["config"])
    train, _ = load_splits(config, open_dataset(prepared_folder(config)))
    attributes, _ = categories(train.attributes)
    _check_dataset(folder, old, train, len(attributes))
    template = PromptTemplate(train.schema, old["template"], train.wording)
    table, note = build_text_table(attributes, template), ""
    try:
        words = known_words(config, table)
    except (FileNotFoundError, ValueError) as error:
        words = known_words(ConfigDict({"weights": "", "init_from": ""}), table)
        note = f"; whether its words are a CLIP's is not known, assumed not ({error})"
    metadata = checkpoint.Metadata(
        model=model.to_dict(),
        schema=train.schema.to_dict(),
        wording=train.wording.to_dict(),
        template=old["template"],
        traits=dict(train.traits),
        categories=checkpoint.pack_categories(attributes),
        words=words,
        config=old["config"],
        dataset=old["dataset"],
        model_id=_model_id(folder, model),
    )
    step, metrics = manifest["step"], manifest["metrics"]
    checkpoint.seal(folder, metadata, step=step, metrics=metrics)
    return f"converted to format {checkpoint.FORMAT}{note}"


def _old_metadata(folder: pathlib.Path) -> dict[str, Any]:
    """The data that format 1 keeps in Orbax's own metadata."""
    from orbax.checkpoint import v1 as ocp

    metadata: Any = ocp.checkpointables_metadata(str(folder)).custom_metadata
    return dict(metadata)


def _check_dataset(folder: pathlib.Path, old: dict[str, Any], train: Split, count: int) -> None:
    found = {"name": train.dataset, "checksum": train.checksum, "categories": count}
    if old["dataset"] != found:
        raise ValueError(
            f"{folder} was trained on {old['dataset']}, but the dataset prepared here is {found}; "
            f"prepare the former, in config.data_dir={old['config']['data_dir']!r}"
        )
    if AttributeSchema.from_dict(old["schema"]) != train.schema:
        raise ValueError(f"{folder} has different attributes from {train.dataset} here")


def _model_id(folder: pathlib.Path, config: AIMAConfig) -> str:
    """The model's ID, from its saved parameters."""
    shapes = flatten(nnx.eval_shape(lambda: AIMA(config, rngs=nnx.Rngs(0))))
    params = checkpoint.load_items(folder, {"params": shapes}, make_mesh(), 2**16)["params"]
    vision = config.clip.vision
    return model_id(to_first_host(params), vision.pixel_mean, vision.pixel_std)
