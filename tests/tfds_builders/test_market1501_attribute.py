"""Market-1501 Attribute: the counts, the records, and every way in which the files can be wrong."""

import collections
import os
import shutil

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from stand_ins import (
    folder_contents,
    market_file_names,
    market_labels,
    picture,
    small_market,
    write_pictures,
)

from aima_jax.data import prepared
from tfds_builders.describe import describe
from tfds_builders.market1501_attribute.builder import Market1501Attribute, read_labels
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.prepare import check, prepare

ROOT = "Market-1501-v15.09.15"
LABELS = "annotations/market1501/market_attribute.mat"


def categories(attributes):
    return {tuple(row) for row in np.asarray(attributes).tolist()}


@pytest.fixture(scope="module")
def full_market(shared_data, tmp_path_factory):
    """All 36,036 file names, with stand-in pictures."""
    folder = tmp_path_factory.mktemp("market")
    root = folder / ROOT
    for name, files in market_file_names(shared_data).items():
        write_pictures(root / name, files)
        (root / name / "Thumbs.db").write_bytes(b"not a picture")
    (root / "attribute").mkdir()
    shutil.copy(shared_data / LABELS, root / "attribute")
    return folder


def test_labels_have_the_known_counts(shared_data):
    labels = read_labels(shared_data / LABELS)
    assert {split: len(people) for split, people in labels.items()} == {"train": 751, "test": 750}
    rows = {split: np.stack(list(people.values())) for split, people in labels.items()}
    assert rows["train"].shape == (751, 35)
    assert len(categories(rows["train"])) == 508
    assert len(categories(rows["test"])) == 484
    assert len(categories(rows["test"]) - categories(rows["train"])) == 315
    names = np.array(market1501_schema.names)
    for group, missing in {"upper_color": (78, 69), "lower_color": (30, 44)}.items():
        columns = np.char.startswith(names, f"{group}=")
        for split, count in zip(("train", "test"), missing, strict=True):
            colors = rows[split][:, columns].sum(1)
            assert (colors == 0).sum() == count
            assert colors.max() == 1
    bags = np.isin(names, ("backpack", "bag", "handbag"))
    assert max(rows["train"][:, bags].sum(1).max(), rows["test"][:, bags].sum(1).max()) == 1


def test_labels_are_the_files_codes(shared_data):
    """Read here in another way, field by field, with the codes as their authors give them."""
    codes = {"age": ("young", "teenager", "adult", "old"), "clothes": ("dress", "pants")}
    codes |= {"down": ("long", "short"), "up": ("long", "short"), "hair": ("short", "long")}
    codes |= {"gender": ("male", "female")}
    groups = {"clothes": "lower_type", "down": "lower_length", "up": "sleeve"}
    raw = scipy.io.loadmat(shared_data / LABELS)["market_attribute"][0, 0]
    labels = read_labels(shared_data / LABELS)
    raw_categories = collections.defaultdict(set)
    for split in ("train", "test"):
        half = raw[split][0, 0]
        for position, identity in enumerate(half["image_index"].ravel()):
            expected = {}
            row = []
            for field in sorted(half.dtype.names):
                if field == "image_index":
                    continue
                code = int(half[field].ravel()[position])
                row.append(code)
                if field in codes:
                    expected[groups.get(field, field)] = codes[field][code - 1]
                elif field in ("hat", "backpack", "bag", "handbag"):
                    expected[field] = code == 2
                elif code == 2:
                    place, color = ("upper", field[2:]) if field[0] == "u" else ("lower", field[4:])
                    expected[f"{place}_color"] = color
            expected = {"upper_color": "none", "lower_color": "none"} | expected
            assert market1501_schema.decode(labels[split][str(identity[0])]) == expected
            raw_categories[split].add(tuple(row))
    assert {split: len(rows) for split, rows in raw_categories.items()} == {
        "train": 508,
        "test": 484,
    }


@pytest.mark.slow
def test_full_size(full_market, shared_data, tmp_path):
    folder = prepare("market1501_attribute", manual_dir=full_market, data_dir=tmp_path)
    assert check("market1501_attribute", data_dir=tmp_path)["counts"] == {
        "train": 12_936,
        "test": 16_483,
    }
    train, test = (prepared.load_labels(folder, split) for split in ("train", "test"))
    assert len(categories(train["attributes"])) == 508
    assert len(categories(test["attributes"])) == 484
    assert len(categories(test["attributes"]) - categories(train["attributes"])) == 315
    real = market_file_names(shared_data)
    assert list(train["filename"]) == sorted(
        f"bounding_box_train/{name}" for name in real["bounding_box_train"]
    )
    kept = [name for name in real["bounding_box_test"] if not name.startswith(("-1_", "0000_"))]
    assert len(real["bounding_box_test"]) - len(kept) == 2_798 + 3_819
    assert list(test["filename"]) == sorted(
        [f"bounding_box_test/{name}" for name in kept] + [f"query/{name}" for name in real["query"]]
    )
    report = describe(folder).splits["test"]
    assert (report.people, report.seen.sum(), (~report.seen).sum()) == (750, 169, 315)
    by_person = read_labels(shared_data / LABELS)
    for split, labels in (("train", train), ("test", test)):
        for name, identity, camera, bits in zip(
            labels["filename"],
            labels["identity"],
            labels["camera"],
            labels["attributes"],
            strict=True,
        ):
            file = str(name).split("/")[1]
            assert (int(file[:4]), int(file[6])) == (identity, camera)
            np.testing.assert_array_equal(bits, by_person[split][file[:4]])


def test_picture_of_the_full_dataset_is_missing(full_market, tmp_path):
    """The label file of all 1,501 people comes with all of their pictures."""
    root = tmp_path / ROOT
    shutil.copytree(full_market / root.name, root, copy_function=os.link)
    (root / "query" / "0001_c1s1_001051_00.jpg").unlink()
    with pytest.raises(ValueError, match=r"query: 3367 pictures of .* people; expected 3368"):
        Market1501Attribute(data_dir=tmp_path).splits(tmp_path)


def test_records(tmp_path):
    raw = small_market(tmp_path / "raw")
    folder = prepare("market1501_attribute", manual_dir=raw, data_dir=tmp_path / "data")
    builder = tfds.builder_from_directory(folder)
    records = list(builder.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()}))
    names = [record["filename"].decode() for record in records]
    assert names == [
        f"{folder}/{identity}_c{camera}s1_000151_01.jpg"
        for folder in ("bounding_box_test", "query")
        for identity in ("0001", "0003")
        for camera in (1, 6)
    ]
    for record, name in zip(records, names, strict=True):
        assert record["image"] == (raw / ROOT / name).read_bytes()
        assert record["camera"] == int(name.split("_c")[1][0])
        assert record["identity"] == int(name.split("/")[1][:4])
        assert market1501_schema.decode(record["attributes"])["upper_color"] == "black"


@pytest.mark.parametrize(
    "labels", ["Market-1501-v15.09.15", "Market-1501-v15.09.15/attribute", "."]
)
@pytest.mark.parametrize("level", [".", "Market-1501-v15.09.15"])
def test_layouts(tmp_path, labels, level):
    raw = small_market(tmp_path / "raw")
    (raw / labels).mkdir(exist_ok=True)
    (raw / ROOT / "market_attribute.mat").rename(raw / labels / "market_attribute.mat")
    splits = Market1501Attribute(data_dir=tmp_path / "data").splits(raw / level)
    assert {name: split.count for name, split in splits.items()} == {"train": 4, "test": 8}


def test_layout_without_the_upper_level(tmp_path):
    raw = small_market(tmp_path / "raw")
    for path in list((raw / ROOT).iterdir()):
        path.rename(raw / path.name)
    (raw / ROOT).rmdir()
    assert Market1501Attribute(data_dir=tmp_path / "data").splits(raw)["train"].count == 4


def spoil_file_name(root):
    (root / "query" / "somebody.jpg").write_bytes(picture(0))


def spoil_identity(root):
    (root / "bounding_box_train" / "0011_c1s1_000151_01.jpg").write_bytes(picture(0))


def spoil_person_without_pictures(root):
    for path in (root / "bounding_box_train").glob("0007_*"):
        path.unlink()


def spoil_picture(root):
    (root / "query" / "0003_c1s1_000151_01.jpg").unlink()
    (root / "query" / "0003_c1s1_000151_01.jpg").write_bytes(picture(0)[:-40])


def spoil_picture_empty(root):
    (root / "query" / "0003_c1s1_000151_01.jpg").unlink()
    (root / "query" / "0003_c1s1_000151_01.jpg").touch()


def spoil_labels_missing(root):
    (root / "market_attribute.mat").unlink()


def spoil_labels_truncated(root):
    data = (root / "market_attribute.mat").read_bytes()
    (root / "market_attribute.mat").write_bytes(data[: len(data) // 2])


def spoil_labels_of_another_dataset(root):
    scipy.io.savemat(root / "market_attribute.mat", {"annotation": np.zeros(3)})


def spoil_labels_without_half(root):
    content = market_labels({"train": ("0002", "0007"), "test": ("0001", "0003")})
    del content["market_attribute"]["train"]
    scipy.io.savemat(root / "market_attribute.mat", content)


def spoil_labels_without_field(root):
    content = market_labels({"train": ("0002", "0007"), "test": ("0001", "0003")})
    del content["market_attribute"]["test"]["uppurple"]
    scipy.io.savemat(root / "market_attribute.mat", content)


def spoil_code(root):
    content = market_labels({"train": ("0002", "0007"), "test": ("0001", "0003")})
    content["market_attribute"]["train"]["age"][1] = 9
    scipy.io.savemat(root / "market_attribute.mat", content)


def spoil_identities(root):
    content = market_labels({"train": ("0002", "0007"), "test": ("0001", "0003")})
    content["market_attribute"]["train"]["image_index"][0, 1] = "seven"
    scipy.io.savemat(root / "market_attribute.mat", content)


def spoil_label_count(root):
    content = market_labels({"train": ("0002", "0007"), "test": ("0001", "0003")})
    content["market_attribute"]["train"]["age"] = np.ones(3, np.uint8)
    scipy.io.savemat(root / "market_attribute.mat", content)


def spoil_folder(root):
    shutil.rmtree(root / "query")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_file_name, r"query/somebody\.jpg: the file name does not parse; expected"),
        (spoil_identity, r"0011_c1s1_000151_01\.jpg: identity 0011 has no labels in .*\.mat"),
        (spoil_person_without_pictures, r"\.mat: .*no picture in bounding_box_train.* 0007"),
        (spoil_picture, r"query/0003_c1s1_000151_01\.jpg: cannot be decoded .*; expected"),
        (
            spoil_picture_empty,
            r"query/0003_c1s1_000151_01\.jpg: .*the file is empty.*; expected",
        ),
        (spoil_labels_missing, r"market_attribute\.mat: no such file; looked in"),
        (spoil_labels_truncated, r"market_attribute\.mat: cannot be read .*Market-1501"),
        (spoil_labels_of_another_dataset, r"\.mat: not Market-1501's .*lacks market_attribute"),
        (spoil_labels_without_half, r"\.mat: not Market-1501's .*market_attribute lacks train"),
        (spoil_labels_without_field, r"\.mat: .*market_attribute\.test lacks uppurple"),
        (spoil_code, r"\.mat: market_attribute\.train\.age is 9 for 0007; expected one of 1, 2"),
        (
            spoil_identities,
            r"\.mat: market_attribute\.train\.image_index repeats a person, or has",
        ),
        (spoil_label_count, r"\.mat: market_attribute\.train\.age has 3 values for 2 people"),
        (spoil_folder, r"query: no such folder; expected it beside"),
    ],
)
def test_bad_input(tmp_path, spoil, message):
    raw = small_market(tmp_path / "raw")
    spoil(raw / ROOT)
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare("market1501_attribute", manual_dir=raw, data_dir=data)
    assert folder_contents(data) == []


def test_wrong_folder_level(tmp_path):
    raw = small_market(tmp_path / "raw")
    root = raw / ROOT
    for given in (root / "query", tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder bounding_box_train") as failure:
            prepare("market1501_attribute", manual_dir=given, data_dir=tmp_path / "data")
        assert f"It seems to be in {root}" in str(failure.value)
