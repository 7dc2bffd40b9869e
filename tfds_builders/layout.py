"""Find a dataset's files where the user unpacked them, and report what is missing."""

import os
import pathlib
from collections.abc import Collection, Sequence

from aima_jax.data.pictures import is_picture_name
from aima_jax.files import is_clutter


def locate(
    manual_dir: pathlib.Path, levels: Sequence[str], folders: Sequence[str], instructions: str
) -> tuple[pathlib.Path, str]:
    """Return the dataset's root, and which of `folders` holds the pictures there.

    Args:
        manual_dir: where the dataset is, according to the user.
        levels: candidates for the dataset's root, relative to manual_dir, the likeliest first.
        folders: possible names of the picture folder below the root.
        instructions: how to place the files, for the message.

    Raises:
        FileNotFoundError: there is no such folder, or it is empty.
    """
    require_folder(manual_dir, instructions)
    for level in levels:
        for folder in folders:
            if _holds_pictures(manual_dir / level / folder):
                return manual_dir / level, folder
    found = sorted(path.name for path in manual_dir.iterdir() if not is_clutter(path.name))
    raise FileNotFoundError(
        f"{manual_dir}: no folder {' or '.join(folders)} with pictures here; found "
        f"{_some(found)}.{_other_level(manual_dir, folders)} {instructions}"
    )


def require_folder(manual_dir: pathlib.Path, instructions: str) -> None:
    """Check that a folder exists and is not empty.

    Raises:
        FileNotFoundError: it is missing or empty.
    """
    if not manual_dir.is_dir():
        raise FileNotFoundError(f"{manual_dir}: no such folder. {instructions}")
    if all(is_clutter(path.name) for path in manual_dir.iterdir()):
        raise FileNotFoundError(f"{manual_dir}: the folder is empty. {instructions}")


def find_file(candidates: Sequence[pathlib.Path], instructions: str) -> pathlib.Path:
    """Return the first candidate that is a file.

    Raises:
        FileNotFoundError: no candidate is a file.
    """
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{candidates[0]}: no such file; looked in "
        f"{', '.join(str(path.parent) for path in candidates)}. {instructions}"
    )


def picture_names(folder: pathlib.Path) -> list[str]:
    """Return the names of a folder's pictures, sorted; ignore other files (Thumbs.db)."""
    return sorted(filter(is_picture_name, os.listdir(folder)))


def require_listed(listed: Collection[str], folder: pathlib.Path, label_file: pathlib.Path) -> None:
    """Check that a folder has exactly the pictures that the label file lists.

    Raises:
        FileNotFoundError: a listed picture is missing.
        ValueError: a picture is not listed.
    """
    present = set(picture_names(folder))
    counts = f"{folder}: {len(present)} pictures, but {label_file} lists {len(listed)}"
    missing = sorted(set(listed) - present)
    if missing:
        raise FileNotFoundError(f"{counts}; missing: {_some(missing)}. Unpack the pictures again.")
    unlisted = sorted(present.difference(listed))
    if unlisted:
        raise ValueError(
            f"{counts}; without labels: {_some(unlisted)}. Expected pictures and label file from "
            "the same version of the dataset."
        )


def _other_level(manual_dir: pathlib.Path, folders: Sequence[str]) -> str:
    """A hint if the dataset is above or below the given folder."""
    above = manual_dir.resolve().parents[:2]
    below = (path for pattern in ("*", "*/*") for path in sorted(manual_dir.glob(pattern)))
    for place in (*above, *below):
        if any(_holds_pictures(place / folder) for folder in folders):
            return f" It seems to be in {place}: give that folder as manual_dir."
    return ""


def _holds_pictures(folder: pathlib.Path) -> bool:
    return folder.is_dir() and any(is_picture_name(entry.name) for entry in os.scandir(folder))


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
