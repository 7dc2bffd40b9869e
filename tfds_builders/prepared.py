"""What lies in the folder of a prepared dataset, and whether it is still what was written.

Beside TFDS's files there are `labels-<split>.npz`, so that nobody has to read pictures to know the
labels, and `manifest.json`. It is written last and names every other file with its checksum.
"""

import pathlib
from typing import Any

import numpy as np

from aima_jax.files import checksums, compare, read_sealed_json, write_sealed_json

MANIFEST = "manifest.json"

Labels = dict[str, np.ndarray]


def write_manifest(
    folder: pathlib.Path,
    *,
    dataset: str,
    schema: dict[str, Any],
    wording: dict[str, Any],
    traits: dict[str, Any],
    counts: dict[str, int],
    contents: dict[str, str],
) -> None:
    """Marks a folder as complete: everything else has to be there already.

    Args:
        dataset: its name, with the builder's config.
        schema: the attribute schema, as `AttributeSchema.to_dict` gives it.
        wording: how it is put into words, as `Wording.to_dict` gives it.
        traits: {"cameras": bool, "query_folder": str or None, "identities": bool}.
        counts: pictures in each split.
        contents: checksum of each split's records; it is the same wherever the dataset is prepared,
            while TFDS's files differ from time to time.
    """
    content = {
        "dataset": dataset,
        "schema": schema,
        "wording": wording,
        "traits": traits,
        "counts": counts,
        "contents": contents,
        "files": checksums(folder, leave_out=MANIFEST),
    }
    write_sealed_json(folder / MANIFEST, content)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """Returns a prepared folder's manifest; ValueError where it is missing or damaged."""
    path = folder / MANIFEST
    advice = f"delete {folder} and prepare the dataset again"
    try:
        return read_sealed_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {advice}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {advice}") from error


def verify(folder: pathlib.Path) -> dict[str, Any]:
    """Reads every file of a prepared folder, and returns its manifest.

    Raises:
        ValueError: naming every file that is damaged or missing.
    """
    manifest = read_manifest(folder)
    problems = compare(folder, manifest["files"], leave_out=MANIFEST)
    for split, count in manifest["counts"].items() if not problems else ():
        found = len(read_labels(folder, split)["filename"])
        if found != count:
            problems.append(f"{labels_file(split)} has {found} records, not {count}")
    if problems:
        raise ValueError(
            f"{folder} is damaged: {'; '.join(problems)}. Delete the folder and prepare the "
            "dataset again"
        )
    return manifest


def write_labels(folder: pathlib.Path, split: str, labels: Labels) -> None:
    """Writes attributes, identity, camera and filename of a split's records, in their order."""
    np.savez_compressed(folder / labels_file(split), **labels)


def read_labels(folder: pathlib.Path, split: str) -> Labels:
    """Returns what `write_labels` wrote."""
    with np.load(folder / labels_file(split), allow_pickle=False) as labels:
        return dict(labels)


def labels_file(split: str) -> str:
    """The name of a split's label file."""
    return f"labels-{split}.npz"
