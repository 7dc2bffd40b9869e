"""A dataset is what was prepared, or an error that names the damaged file; no builder is needed."""

import ast
import hashlib
import logging
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from stand_ins import small_pa100k

import aima_jax
from aima_jax import files as files_module
from aima_jax.data import categories, hold_out_categories, open_dataset
from aima_jax.data.pictures import read_pixels
from tfds_builders.pa100k import SCHEMA, WORDING
from tfds_builders.prepare import prepare


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> pathlib.Path:
    return small_pa100k(tmp_path_factory.mktemp("raw"), train=9, val=1, test=3)


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory) -> pathlib.Path:
    return prepare("pa100k", manual_dir=raw, data_dir=tmp_path_factory.mktemp("prepared"))


def test_a_split_holds_what_the_files_held(raw, folder):
    split = open_dataset(folder).split("test")
    root = raw / "PA-100K"
    assert (split.dataset, split.split, len(split)) == ("pa100k", "test", 3)
    assert split.schema == SCHEMA
    assert split.attributes.shape == (3, 26) and split.attributes.dtype == np.uint8
    assert split.identity.tolist() == split.camera.tolist() == [-1] * 3
    files = [root / name for name in split.filename]
    assert [file.stem for file in files] == ["000011", "000012", "000013"]
    assert [split.bytes(i) for i in range(3)] == [file.read_bytes() for file in files]
    expected = [read_pixels(files[i], (12, 6)) for i in (2, 0)]
    np.testing.assert_array_equal(split.images(np.array([2, 0]), (12, 6)), expected)


def test_a_dataset_says_what_it_is(folder):
    dataset = open_dataset(folder)
    traits = {"cameras": False, "query_folder": None, "identities": False}
    for one in (dataset, dataset.split("train")):
        assert (one.schema, one.wording, one.traits) == (SCHEMA, WORDING, traits)
    assert (dataset.name, dataset.counts) == ("pa100k", {"train": 9, "val": 1, "test": 3})


def test_a_process_reads_the_files_once_to_check_them(folder, monkeypatch):
    read, digest = [], hashlib.file_digest
    files_module._known_sha256.cache_clear()
    monkeypatch.setattr(files_module, "_SETTLED_NANOSECONDS", -(10**18))  # as if long prepared
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: (read.append(file.name), digest(file, name))[1]
    )
    for split in ("train", "val", "test"):
        open_dataset(folder).split(split)
    assert len(read) == len(set(read)) == len(list(folder.iterdir())) - 1


def test_what_the_manifest_does_not_name_is_told_once_and_ignored(folder, tmp_path, caplog):
    copy = shutil.copytree(folder, tmp_path / "1.0.0")
    for name in (".DS_Store", "._manifest.json", "Thumbs.db", "notes.txt"):
        (copy / name).write_text("not of the dataset")
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            assert len(open_dataset(copy).split("train")) == 9
    told = [record.getMessage() for record in caplog.records if "1.0.0" in record.getMessage()]
    assert len(told) == 1
    assert "notes.txt" in told[0] and "DS_Store" not in told[0]


def imports(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_nothing_but_the_first_run_and_a_command_imports_a_builder():
    """And these do within a function, when it is called."""
    package = pathlib.Path(aima_jax.__file__).parent
    files = [path for path in package.rglob("*.py") if "tfds_builders" in path.read_text()]
    importing = [
        path.relative_to(package).as_posix()
        for path in files
        if any(name.split(".")[0] == "tfds_builders" for name in imports(path))
    ]
    assert sorted(importing) == ["convert/__main__.py", "data/prepared.py"]
    for name in importing:
        top = ast.parse((package / name).read_text()).body
        assert not [node for node in top if "tfds_builders" in getattr(node, "module", "")]


def test_a_prepared_dataset_needs_no_builder(folder):
    """Every module is imported, and the dataset opened, where the builders cannot be."""
    code = f"""
import importlib, pathlib, pkgutil, sys
sys.modules["tfds_builders"] = None
import aima_jax
from aima_jax.data import open_dataset
for module in pkgutil.walk_packages(aima_jax.__path__, "aima_jax."):
    # What convert.pytorch has beside itself is copied out, to run where PyTorch is.
    if not module.name.endswith("__main__") and ".convert.pytorch." not in module.name:
        importlib.import_module(module.name)
split = open_dataset(pathlib.Path({str(folder)!r})).split("train")
assert split.images([0], (8, 4)).shape == (1, 8, 4, 3)
assert split.wording and split.traits
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_checksum_is_that_of_the_content(raw, folder, tmp_path):
    again = prepare("pa100k", manual_dir=raw, data_dir=tmp_path)
    first, second = open_dataset(folder), open_dataset(again)
    assert second.split("train").checksum == first.split("train").checksum
    assert first.split("test").checksum != first.split("train").checksum


def test_splits_that_are_not_there(folder, tmp_path):
    assert open_dataset(folder).has("val") and not open_dataset(folder).has("query")
    with pytest.raises(ValueError, match=r"no pictures for the split 'query'.* train with 9"):
        open_dataset(folder).split("query")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_dataset(tmp_path / "nowhere").split("train")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, pathlib.Path.unlink])
def test_damage_to_any_file_is_found_and_named(folder, tmp_path, damage):
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 9  # a shard and the labels of each split, TFDS's two files, the manifest
    for name in names:
        copy = shutil.copytree(folder, tmp_path / name / "1.0.0")
        damage(copy / name)
        for split in ("train", "test"):
            with pytest.raises(ValueError, match=name):
                open_dataset(copy).split(split)


def test_a_record_that_goes_bad_later_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy" / "1.0.0")
    split = open_dataset(copy).split("train")
    shard = next(copy.glob("*train*array_record*"))
    content = bytearray(shard.read_bytes())
    content[64:-64] = bytes(len(content) - 128)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture 4 of pa100k train, .*000005\.jpg"):
        split.images(np.array([4]), (12, 6))


def test_take_keeps_pictures_and_labels_together(folder):
    split = open_dataset(folder).split("train")
    indices = np.array([7, 2, 3])
    some = split.take(indices).take(np.array([1, 0]))
    assert some.filename.tolist() == split.filename[[2, 7]].tolist()
    np.testing.assert_array_equal(some.attributes, split.attributes[[2, 7]])
    assert [some.bytes(i) for i in range(2)] == [split.bytes(2), split.bytes(7)]
    sums = {split.checksum, some.checksum, split.take(np.array([7, 2])).checksum}
    assert len(sums) == 3
    assert split.take(indices).checksum == split.take(indices).checksum


def test_categories_are_the_distinct_vectors_in_lexicographic_order():
    attributes = np.random.default_rng(0).integers(0, 2, (200, 5)).astype(np.uint8)
    table, category = categories(attributes)
    np.testing.assert_array_equal(table[category], attributes)
    rows = [tuple(row) for row in table.tolist()]
    assert rows == sorted(set(map(tuple, attributes.tolist())))
    assert category.dtype == np.int32 and category.shape == (200,)


def test_held_out_categories_are_in_one_part_alone(folder):
    split = open_dataset(folder).split("train")
    rest, held = hold_out_categories(split, 1, seed=3)
    assert len(rest) + len(held) == len(split)
    assert set(rest.filename) | set(held.filename) == set(split.filename)
    assert len(categories(held.attributes)[0]) == len(categories(rest.attributes)[0]) == 1
    assert held.attributes[0].tolist() != rest.attributes[0].tolist()
    again = hold_out_categories(split, 1, seed=3)[1]
    assert again.checksum == held.checksum
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"hold out {count} of the 2"):
            hold_out_categories(split, count, seed=0)
