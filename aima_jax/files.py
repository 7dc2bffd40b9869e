"""Files: user-given paths, atomic writes, and folders verified by checksums."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

Files = dict[str, dict[str, int | str]]

_log = logging.getLogger(__name__)

# Left by file managers, network stores, archives and notebooks; never pictures or files of ours.
# The last two contain copies of pictures.
_CLUTTER = frozenset(
    {".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir", "__MACOSX", ".AppleDouble", "$RECYCLE.BIN"}
    | {".thumbnails", ".ipynb_checkpoints"}
)
_SETTLED_NANOSECONDS = 10**8  # a more recent file may change again without a new time stamp


def user_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return a user-given path as an absolute path, with `~` expanded.

    Raises:
        ValueError: it is in an object store, a web address, or in the home of an unknown user.
    """
    text = os.fspath(path)
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text):
        raise ValueError(
            f"{text}: paths with {scheme[1]}:// are not supported; copy it to a local disk, or "
            "mount it, and name that folder"
        )
    try:
        return pathlib.Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError(
            f"{text}: no home folder is known for {text.split('/')[0]}; set HOME, or give the full "
            "path"
        ) from None


def is_clutter(path: str | os.PathLike[str]) -> bool:
    """Return whether a relative path is system clutter beside the user's own files.

    That is, it is or is inside one of `_CLUTTER`, or a name that begins with `._`.
    """
    parts = pathlib.PurePath(path).parts
    return any(part in _CLUTTER or part.startswith("._") for part in parts)


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Yield a temporary path to write to, and move it to `path` at the end: complete or absent.

    Args:
        path: of the file.
        shared: without a lock, other processes may write it at the same time: the last one wins.

    Raises:
        OSError: it could not be written; the message has the file's name, even on a full disk.
    """
    own = f".{uuid.uuid4().hex}" if shared else ""
    temporary = path.with_name(f".{path.name}{own}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, content: object, *, shared: bool = False) -> None:
    """Write a JSON file, on disk before it has its name; `shared` as of `atomic_write`."""
    with (
        atomic_write(path, shared=shared) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def write_sealed_json(
    path: pathlib.Path, content: Mapping[str, Any], *, shared: bool = False
) -> None:
    """Write a JSON object together with its own checksum; `shared` as of `atomic_write`."""
    write_json(path, {**content, "sha256": _digest(content)}, shared=shared)


def read_sealed_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a file from `write_sealed_json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has changed since it was written.
    """
    text = path.read_bytes()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    content = dict(found) if isinstance(found, dict) else {}
    # The checksum does not cover the end of the last line.
    if content.pop("sha256", None) != _digest(content) or not text.endswith(b"\n"):
        raise ValueError(f"{path} has changed since it was written")
    return content


def checksums(folder: pathlib.Path, *, leave_out: str) -> Files:
    """Return size in bytes and SHA-256 of every file below a folder, by relative path."""
    return {
        name: {"size": path.stat().st_size, "sha256": _sha256(path)}
        for name, path in _files(folder)
        if name != leave_out
    }


def compare(folder: pathlib.Path, expected: Files, *, leave_out: str) -> list[str]:
    """Return a phrase for each missing or changed file among those that `checksums` listed.

    Other files are logged once and ignored. A file that has not changed since this process last
    read it is not read again.
    """
    others = sorted(name for name, _ in _files(folder) if name not in {*expected, leave_out})
    if others:
        _warn_once(f"{folder} contains foreign files, which are ignored: {others[:5]}")
    problems = []
    for name, facts in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != facts["size"]:
            problems.append(f"{name} has {size} bytes, not {facts['size']}")
        elif _sha256(path) != facts["sha256"]:
            problems.append(f"{name} has changed")
    return sorted(problems)


def free_name(path: pathlib.Path) -> pathlib.Path:
    """Return `path`, or the first of `path.1`, `path.2`, … that is not taken."""
    taken, number = path, 0
    while os.path.lexists(taken):
        number += 1
        taken = path.with_name(f"{path.name}.{number}")
    return taken


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not is_clutter(name):
            yield name.as_posix(), path


def _sha256(path: pathlib.Path) -> str:
    facts = path.stat()
    changed = max(facts.st_mtime_ns, facts.st_ctime_ns)
    state = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    settled = time.time_ns() - changed > _SETTLED_NANOSECONDS
    return (_known_sha256 if settled else _known_sha256.__wrapped__)(path, state)


@functools.lru_cache(maxsize=2**14)
def _known_sha256(path: pathlib.Path, state: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _warn_once(text: str) -> None:
    _log.warning("%s", text)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
