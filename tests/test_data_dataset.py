"""A split is what was prepared, or an error that names the damaged file."""

import pathlib
import shutil

import numpy as np
import pytest
from stand_ins import small_pa100k

from aima_jax.data import categories, has_split, hold_out_categories, load_split
from aima_jax.data.pictures import read_pixels
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.prepare import prepare


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> pathlib.Path:
    return small_pa100k(tmp_path_factory.mktemp("raw"), train=9, val=1, test=3)


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory) -> pathlib.Path:
    return prepare("pa100k", manual_dir=raw, data_dir=tmp_path_factory.mktemp("prepared"))


def test_a_split_holds_what_the_files_held(raw, folder):
    split = load_split(folder, "test")
    root = raw / "PA-100K"
    assert (split.dataset, split.split, len(split)) == ("pa100k", "test", 3)
    assert split.schema == pa100k_schema
    assert split.attributes.shape == (3, 26) and split.attributes.dtype == np.uint8
    assert split.identity.tolist() == split.camera.tolist() == [-1] * 3
    files = [root / name for name in split.filename]
    assert [file.stem for file in files] == ["000011", "000012", "000013"]
    assert [split.bytes(i) for i in range(3)] == [file.read_bytes() for file in files]
    expected = [read_pixels(files[i], (12, 6)) for i in (2, 0)]
    np.testing.assert_array_equal(split.images(np.array([2, 0]), (12, 6)), expected)


def test_the_checksum_is_that_of_the_content(raw, folder, tmp_path):
    again = prepare("pa100k", manual_dir=raw, data_dir=tmp_path)
    assert load_split(again, "train").checksum == load_split(folder, "train").checksum
    assert load_split(folder, "test").checksum != load_split(folder, "train").checksum


def test_splits_that_are_not_there(folder, tmp_path):
    assert has_split(folder, "val") and not has_split(folder, "query")
    with pytest.raises(ValueError, match=r"no pictures for the split 'query'.* train with 9"):
        load_split(folder, "query")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_split(tmp_path / "nowhere", "train")


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
                load_split(copy, split)


def test_a_record_that_goes_bad_later_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy" / "1.0.0")
    split = load_split(copy, "train")
    shard = next(copy.glob("*train*array_record*"))
    content = bytearray(shard.read_bytes())
    content[64:-64] = bytes(len(content) - 128)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture 4 of pa100k train, .*000005\.jpg"):
        split.images(np.array([4]), (12, 6))


def test_take_keeps_pictures_and_labels_together(folder):
    split = load_split(folder, "train")
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
    split = load_split(folder, "train")
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
