"""A list of a folder's files with their checksums, written last: the mark of completeness."""

import hashlib
import json
import os
import pathlib

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


def write_json(path: pathlib.Path, content: object) -> None:
    """Writes a JSON file that is complete or absent, whatever happens meanwhile."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
