"""A prepared dataset on disk: the files that its builder writes, and their verification.

Beside TFDS's files there are `labels-<split>.npz`, to read labels without pictures, and
`manifest.json`, which is written last, describes the dataset and has a checksum of every file.
"""

import pathlib
import shlex
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aima_jax.attributes import AttributeSchema
from aima_jax.files import checksums, compare, read_sealed_json, write_sealed_json

MANIFEST = "manifest.json"
FORMAT = 2

SplitLabels = dict[str, np.ndarray]


def write_manifest(
    folder: pathlib.Path,
    *,
    dataset: str,
    schema: dict[str, Any],
    wording: dict[str, Any],
    traits: dict[str, Any],
    counts: dict[str, int],
    contents: dict[str, str],
    sources: dict[str, str] | None = None,
) -> None:
    """Mark a folder as complete; everything else must already be there.

    Args:
        folder: the prepared dataset.
        dataset: its name, with the builder's config.
        schema: the attribute schema, as returned by `AttributeSchema.to_dict`.
        wording: its wording, as returned by `Wording.to_dict`.
        traits: {"cameras": bool, "query_folder": str or None, "identities": bool}.
        counts: pictures in each split.
        contents: checksum of each split's records; it is the same wherever the dataset is prepared,
            although TFDS's files may differ.
        sources: checksums of raw files that make the folder stale if they change.
    """
    content = {
        "format": FORMAT,
        "dataset": dataset,
        "schema": schema,
        "wording": wording,
        "traits": traits,
        "counts": counts,
        "contents": contents,
        "sources": sources or {},
        "files": checksums(folder, leave_out=MANIFEST),
    }
    write_sealed_json(folder / MANIFEST, content)


def read_manifest(folder: pathlib.Path, *, version: int = FORMAT) -> dict[str, Any]:
    """Return a prepared folder's manifest.

    Args:
        folder: the prepared dataset.
        version: of the format; only `aima prepare` reads version 1, to rewrite it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the manifest is missing or damaged, or of another version of the format.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a prepared dataset")
    path = folder / MANIFEST
    try:
        manifest = read_sealed_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {_ADVICE}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {_ADVICE}") from error
    found = manifest.get("format", 1)
    if found == version:
        return manifest
    if found == 1:
        dataset = manifest["dataset"]
        data_dir = folder.parents[len(dataset.split("/"))]
        raise ValueError(
            f"{path} has format 1, from an earlier version; rewrite it with: aima prepare "
            f"{dataset} --data_dir={shlex.quote(str(data_dir))}"
        )
    raise ValueError(
        f"{path} has format {found}; expected {version}: update AIMA-JAX, or set another data_dir"
    )


def read_verified(folder: pathlib.Path, *, version: int = FORMAT) -> dict[str, Any]:
    """Verify every file of a prepared folder, at most once per process, and return its manifest.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: files are damaged or missing; the message names each; or as `read_manifest`.
    """
    manifest = read_manifest(folder, version=version)
    problems = compare(folder, manifest["files"], leave_out=MANIFEST)
    for split, count in manifest["counts"].items() if not problems else ():
        found = len(load_labels(folder, split)["filename"])
        if found != count:
            problems.append(f"{labels_file(split)} has {found} records, not {count}")
    if problems:
        raise ValueError(f"{folder} is damaged: {'; '.join(problems)}: {_ADVICE}")
    return manifest


_ADVICE = "move the folder away and prepare the dataset again"


def write_labels(folder: pathlib.Path, split: str, labels: SplitLabels) -> None:
    """Write attributes, identity, camera and filename of a split's records, in order."""
    arrays: dict[str, Any] = dict(labels)
    np.savez_compressed(folder / labels_file(split), **arrays)


def load_labels(folder: pathlib.Path, split: str) -> SplitLabels:
    """Return what `write_labels` wrote."""
    with np.load(folder / labels_file(split), allow_pickle=False) as labels:
        return dict(labels)


def labels_file(split: str) -> str:
    """The name of a split's label file."""
    return f"labels-{split}.npz"


def prepared_folder(config: ConfigDict) -> pathlib.Path:
    """Return the folder of `config.dataset`; the first host prepares it if necessary.

    Only this and the two functions below import builders into `aima_jax`.

    Raises:
        FileNotFoundError: neither prepared nor raw files are found.
        ValueError: the raw files are invalid, or the dataset is unknown.
    """
    import jax
    from jax.experimental import multihost_utils

    from tfds_builders.prepare import find, prepare

    places = {"data_dir": config.data_dir or None}
    if jax.process_index() == 0:
        prepare(config.dataset, manual_dir=config.manual_dir or None, **places)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("prepared")
    folder = find(config.dataset, **places)
    if folder is None:
        raise FileNotFoundError(
            f"{config.dataset} is not prepared in config.data_dir={config.data_dir!r} on host "
            f"{jax.process_index()}; all hosts need one shared folder, or a copy each"
        )
    return folder


def common_meanings(
    schema: AttributeSchema,
) -> dict[str, tuple[tuple[str, ...] | None, tuple[str, ...] | None]]:
    """Return the meaning of a schema's bits in the builders' common vocabulary.

    Raises:
        ValueError: there is no table for the schema.
    """
    from tfds_builders.upar.mapping import MEANINGS, SCHEMAS

    if schema.name not in MEANINGS or schema.names != SCHEMAS[schema.name].names:
        raise ValueError(
            f"no table maps the attributes of {schema.name!r} to the common vocabulary; there are "
            f"tables for {', '.join(MEANINGS)} (tfds_builders/upar/mapping.py)"
        )
    return MEANINGS[schema.name]


def may_share_pictures(trained: str, asked: str) -> bool:
    """Return whether the test split of one dataset may contain training pictures of another."""
    from tfds_builders import prepare

    return prepare.common_pictures(trained, asked)
