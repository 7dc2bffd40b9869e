"""Every change to a folder is seen and named; a JSON file is complete or absent."""

import errno
import json
import os

import pytest

from aima_jax import manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "inner" / "b.bin").write_bytes(b"b" * 1000)
    (tmp_path / "empty").touch()
    return tmp_path


def problems_after(folder, change):
    before = manifest.checksums(folder, leave_out="M.json")
    change()
    return manifest.compare(before, manifest.checksums(folder, leave_out="M.json"))


def test_an_untouched_folder_is_sound(folder):
    assert problems_after(folder, lambda: (folder / "M.json").write_text("{}")) == []


@pytest.mark.parametrize("name", ["a.bin", "inner/b.bin"])
def test_damage_is_named(folder, name):
    path = folder / name
    content = path.read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    assert problems_after(folder, lambda: path.write_bytes(flipped)) == [f"{name} has changed"]
    path.write_bytes(content)
    [problem] = problems_after(folder, lambda: path.write_bytes(content[:-1]))
    assert problem.startswith(f"{name} has {len(content) - 1} bytes")
    path.write_bytes(content)
    assert problems_after(folder, path.unlink) == [f"{name} is missing"]


def test_a_stranger_is_named(folder):
    [problem] = problems_after(folder, lambda: (folder / "new").touch())
    assert problem == "new does not belong there"


def test_failed_json_leaves_the_old_and_no_traces(tmp_path):
    path = tmp_path / "results.json"
    manifest.write_json(path, {"R1": 0.5})
    with pytest.raises(ValueError):
        manifest.write_json(path, {"R1": float("nan")})
    assert json.loads(path.read_text()) == {"R1": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*results\.json'"),
        manifest.whole(tmp_path / "results.json") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())
