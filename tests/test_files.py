"""Damage to a folder is seen and named; a file is complete or absent; paths are read in one way."""

import errno
import json
import logging
import os
import pathlib

import pytest

from aima_jax import files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "inner" / "b.bin").write_bytes(b"b" * 1000)
    (tmp_path / "empty").touch()
    return tmp_path


def problems_after(folder, change):
    before = files.checksums(folder, leave_out="M.json")
    change()
    return files.compare(folder, before, leave_out="M.json")


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


def test_what_is_not_listed_is_no_damage_and_is_told_of_once(folder, caplog):
    with caplog.at_level(logging.WARNING):
        assert problems_after(folder, lambda: (folder / "new").touch()) == []
        listed = files.checksums(folder, leave_out="new")
        assert files.compare(folder, listed, leave_out="M.json") == []
    assert [record for record in caplog.messages if "'new'" in record] == [
        f"{folder} contains foreign files, which are ignored: ['new']"
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "Thumbs.db", "desktop.ini", "._a.bin", "@eaDir/a.bin", "__MACOSX/._a"),
        *(".ipynb_checkpoints/a.bin", ".thumbnails/a.bin", ".AppleDouble/a.bin"),
    ],
)
def test_clutter_is_neither_listed_nor_told_of(folder, name, caplog):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"clutter")
    assert files.is_clutter(name)
    assert not any(map(files.is_clutter, ["a.bin", "inner/b._bin", "DS_Store.jpg", "_/a.jpg"]))
    listed = files.checksums(folder, leave_out="M.json")
    assert set(listed) == {"a.bin", "inner/b.bin", "empty"}
    with caplog.at_level(logging.WARNING):
        assert files.compare(folder, listed, leave_out="M.json") == []
    assert not caplog.messages


def test_a_file_is_read_once_until_it_changes(folder, monkeypatch):
    monkeypatch.setattr(files, "_SETTLED_NANOSECONDS", -1)
    read = []
    opened = pathlib.Path.open

    def counted(self, *arguments, **options):
        read.append(self.name)
        return opened(self, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", counted)
    listed = files.checksums(folder, leave_out="M.json")
    assert sorted(read) == ["a.bin", "b.bin", "empty"]
    assert files.compare(folder, listed, leave_out="M.json") == []
    assert len(read) == 3
    os.utime(folder / "a.bin", ns=(0, 0))
    assert files.compare(folder, listed, leave_out="M.json") == []
    assert read[3:] == ["a.bin"]


def test_a_file_that_has_just_been_written_is_always_read(folder):
    """Within the grain of a file system's clock a second change leaves the same time."""
    listed = files.checksums(folder, leave_out="M.json")
    facts = (folder / "a.bin").stat()
    (folder / "a.bin").write_bytes(bytes(256))
    os.utime(folder / "a.bin", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert files.compare(folder, listed, leave_out="M.json") == ["a.bin has changed"]


def test_failed_json_leaves_the_old_and_no_traces(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(path, {"R1": 0.5})
    with pytest.raises(ValueError):
        files.write_json(path, {"R1": float("nan")})
    assert json.loads(path.read_text()) == {"R1": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*results\.json'"),
        files.atomic_write(tmp_path / "results.json") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_of_two_who_write_a_shared_file_at_once_each_writes_all_of_it(tmp_path):
    path = tmp_path / "bank.npz"
    with files.atomic_write(path, shared=True) as first:
        first.write_text("first, half")
        with files.atomic_write(path, shared=True) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        first.write_text("first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_free_name_is_one_that_nothing_has(tmp_path):
    for expected in ("20.damaged", "20.damaged.1", "20.damaged.2"):
        path = files.free_name(tmp_path / "20.damaged")
        assert path.name == expected
        path.symlink_to("nowhere")


def test_a_path_is_absolute_and_its_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert files.user_path("~/new1") == tmp_path / "new1"
    assert files.user_path(pathlib.Path("~")) == tmp_path
    assert files.user_path("runs/a") == tmp_path / "runs" / "a"
    assert files.user_path("/a/b:c") == pathlib.Path("/a/b:c")


@pytest.mark.parametrize("path", ["gs://bucket/run", "s3://b", "https://a/b", "gs:/bucket/run"])
def test_a_scheme_is_refused_by_name_with_what_to_do(path):
    scheme = path.split(":")[0]
    with pytest.raises(ValueError, match=f"{scheme}:// are not supported; copy it to a local disk"):
        files.user_path(path)


def test_a_home_that_nobody_has_is_named():
    with pytest.raises(ValueError, match="~nobody-of-this-name/x: no home folder is known for ~no"):
        files.user_path("~nobody-of-this-name/x")
