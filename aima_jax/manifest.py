"""A list of a folder's files with their checksums, written last: the mark of completeness."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

Files = dict[str, dict[str, int | str]]


def checksums(folder: pathlib.Path, *, leave_out: str) -> Files:
    """Size in bytes and SHA-256 of every file below a folder, by its path there."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != leave_out:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = {"size": path.stat().st_size, "sha256": digest}
    return files


def compare(expected: Files, found: Files) -> list[str]:
    """What differs between two lists of files, a phrase for each file."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} does not belong there" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        if expected[name]["size"] != found[name]["size"]:
            problems.append(f"{name} has {found[name]['size']} bytes, not {expected[name]['size']}")
        elif expected[name]["sha256"] != found[name]["sha256"]:
            problems.append(f"{name} has changed")
    return sorted(problems)


def write_sealed(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes a JSON object together with its own checksum."""
    write_json(path, {**content, "sha256": _digest(content)})


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `write_sealed` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what was written.
    """
    text = path.read_bytes()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    content = dict(found) if isinstance(found, dict) else {}
    # The checksum does not see whether the last line is whole.
    if content.pop("sha256", None) != _digest(content) or not text.endswith(b"\n"):
        raise ValueError(f"{path} has changed since it was written")
    return content


def write_json(path: pathlib.Path, content: object) -> None:
    """Writes a JSON file that is complete or absent, whatever happens meanwhile."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where to write a file so that it is complete or absent: it is moved to `path` at the end.

    Raises:
        OSError: it could not be written, of a full disk too with the file's name.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
