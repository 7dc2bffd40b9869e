"""PA-100K: the counts of all 100,000 labels, 2,000 real crops, and what can be wrong."""

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from stand_ins import folder_contents, pa100k_labels, picture, small_pa100k, write_pictures

from aima_jax.data import prepared
from tfds_builders.pa100k.builder import Pa100k
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.prepare import prepare

COUNTS = {"train": 6, "val": 1, "test": 3}


def categories(attributes):
    return {tuple(row) for row in np.asarray(attributes).tolist()}


@pytest.mark.slow
def test_full_size(shared_data, tmp_path):
    """All names and labels; decoding as many pictures is left to the smaller datasets."""
    root = tmp_path / "PA-100K"
    names = [f"{number:06d}.jpg" for number in range(1, 100_001)]
    write_pictures(root / "release_data" / "release_data", names)
    label_file = root / "annotation.mat"
    label_file.write_bytes((shared_data / "annotations/pa100k/annotation.mat").read_bytes())
    splits = Pa100k(data_dir=tmp_path / "data").splits(tmp_path)
    sizes = {name: split.count for name, split in splits.items()}
    assert sizes == {"train": 80_000, "val": 10_000, "test": 10_000}

    raw = scipy.io.loadmat(label_file)
    rows = {}
    for split, made in splits.items():
        rows[split] = np.stack([record.attributes for record in made.records])
        np.testing.assert_array_equal(rows[split], raw[f"{split}_label"])
        files = [record.image.name for record in made.records]
        assert files == [str(name[0]) for name in raw[f"{split}_images_name"].ravel()]

    held = {split: categories(rows[split]) for split in splits}
    assert {split: len(distinct) for split, distinct in held.items()} == {
        "train": 2_020,
        "val": 954,
        "test": 849,
    }
    assert len(held["test"] - held["train"]) == 168
    every = np.concatenate(list(rows.values()))
    bits = np.array(pa100k_schema.names)
    for group in ("age", "view", "sleeve"):
        assert (every[:, np.char.startswith(bits, f"{group}=")].sum(1) == 1).all()


def test_real_crops_byte_for_byte(shared_data, tmp_path):
    raw = shared_data / "pa100k_2000"
    folder = prepare("pa100k", manual_dir=raw, data_dir=tmp_path)
    assert prepared.read_verified(folder)["counts"] == {"train": 1_400, "val": 200, "test": 400}
    labels = {split: prepared.load_labels(folder, split) for split in ("train", "val", "test")}
    held = {split: categories(rows["attributes"]) for split, rows in labels.items()}
    assert {split: len(rows) for split, rows in held.items()} == {
        "train": 438,
        "val": 142,
        "test": 210,
    }
    assert len(held["test"] & held["train"]) == 152
    file = scipy.io.loadmat(raw / "PA-100K" / "annotation" / "annotation.mat")
    builder = tfds.builder_from_directory(folder)
    for split, rows in labels.items():
        names = [str(name[0]) for name in file[f"{split}_images_name"].ravel()]
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        assert len(source) == len(names)
        for index, record in enumerate(source):
            name = f"release_data/release_data/{names[index]}"
            assert record["filename"].decode() == rows["filename"][index] == name
            assert record["image"] == (raw / "PA-100K" / name).read_bytes()
            np.testing.assert_array_equal(record["attributes"], file[f"{split}_label"][index])
            np.testing.assert_array_equal(record["attributes"], rows["attributes"][index])
            assert record["identity"] == record["camera"] == -1
        assert (rows["identity"] == -1).all()
        assert (rows["camera"] == -1).all()


@pytest.mark.parametrize("pictures", ["release_data/release_data", "release_data", "data"])
@pytest.mark.parametrize("labels", ["annotation/annotation.mat", "annotation.mat"])
@pytest.mark.parametrize("level", ["PA-100K", "."])
def test_layouts(tmp_path, pictures, labels, level):
    made = small_pa100k(tmp_path / "made") / "PA-100K"
    root = tmp_path / "raw" / level
    for target, source in (
        (pictures, "release_data/release_data"),
        (labels, "annotation/annotation.mat"),
    ):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (made / source).rename(root / target)
    splits = Pa100k(data_dir=tmp_path / "data").splits(tmp_path / "raw")
    assert {name: split.count for name, split in splits.items()} == COUNTS
    assert splits["val"].records[0].filename == f"{pictures}/000007.jpg"


def test_empty_split(tmp_path):
    """A cut without pictures to validate on has no such split."""
    raw = small_pa100k(tmp_path / "raw", train=3, val=0, test=2)
    folder = prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "data")
    assert prepared.read_verified(folder)["counts"] == {"train": 3, "test": 2}


def write_labels(root, change):
    content = pa100k_labels(COUNTS)
    change(content)
    scipy.io.savemat(root / "annotation" / "annotation.mat", content)


def spoil_missing(root):
    (root / "release_data" / "release_data" / "000003.jpg").unlink()


def spoil_unlisted(root):
    (root / "release_data" / "release_data" / "000011.jpg").write_bytes(picture(0))


def spoil_picture(root):
    (root / "release_data" / "release_data" / "000010.jpg").unlink()
    (root / "release_data" / "release_data" / "000010.jpg").write_bytes(b"GIF89a" + bytes(99))


def spoil_label_count(root):
    write_labels(root, lambda content: content.update(train_label=content["train_label"][:5]))


def spoil_label_names(root):
    write_labels(root, lambda content: content.update(attributes=content["attributes"][:25]))


def spoil_order(root):
    write_labels(root, lambda content: content.update(attributes=content["attributes"][::-1]))


def spoil_variable(root):
    write_labels(root, lambda content: content.pop("val_label"))


def spoil_duplicate(root):
    write_labels(
        root,
        lambda content: content["val_images_name"].__setitem__((0, 0), "000001.jpg"),
    )


def spoil_path(name):
    def spoil(root):
        (root.parent / "outside.jpg").write_bytes(picture(0))
        write_labels(root, lambda content: content["val_images_name"].__setitem__((0, 0), name))

    return spoil


def spoil_truncated(root):
    path = root / "annotation" / "annotation.mat"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_not_matlab(root):
    (root / "annotation" / "annotation.mat").write_bytes(b"<html>Quota exceeded</html>" * 20)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            spoil_missing,
            r"release_data: 9 pictures, but .*\.mat lists 10; missing: 000003\.jpg",
        ),
        (spoil_unlisted, r"release_data: 11 pictures, but .*lists 10; without labels: 000011\.jpg"),
        (spoil_picture, r"000010\.jpg: cannot be decoded"),
        (spoil_label_count, r"\.mat: train_label has shape \(5, 26\); expected 6 pictures × 26"),
        (spoil_label_names, r"\.mat: attributes are Female, .*; expected Female, .*, boots"),
        (spoil_order, r"\.mat: attributes are boots, .*; expected Female, .*, boots"),
        (spoil_variable, r"\.mat: not PA-100K's label file: it lacks val_label"),
        (spoil_duplicate, r"\.mat: a picture is listed twice"),
        (spoil_path("../outside.jpg"), r"\.mat: val_images_name has '\.\./outside\.jpg'"),
        (spoil_path("..\\outside.jpg"), r"\.mat: val_images_name has '\.\..*outside\.jpg'"),
        (spoil_path("/etc/passwd"), r"\.mat: val_images_name has '/etc/passwd'; expected a bare"),
        (spoil_path(".."), r"\.mat: val_images_name has '\.\.'; expected a bare file name"),
        (
            spoil_truncated,
            r"annotation\.mat: cannot be read \(.*\); expected the MATLAB",
        ),
        (spoil_not_matlab, r"annotation\.mat: cannot be read \(it does not begin like a MATLAB"),
    ],
)
def test_bad_input(tmp_path, spoil, message):
    raw = small_pa100k(tmp_path / "raw")
    spoil(raw / "PA-100K")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_label_file_of_another_dataset(shared_data, tmp_path):
    raw = small_pa100k(tmp_path / "raw")
    other = (shared_data / "annotations/peta/PETA.mat").read_bytes()
    (raw / "PA-100K" / "annotation" / "annotation.mat").write_bytes(other)
    with pytest.raises(ValueError, match=r"not PA-100K's label file: it lacks attributes, .* peta"):
        prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "data")


def test_folder_missing_empty_or_of_another_level(tmp_path):
    raw = small_pa100k(tmp_path / "raw")
    (tmp_path / "empty" / "@eaDir").mkdir(parents=True)
    (tmp_path / "empty" / ".DS_Store").touch()
    for given, message in {
        tmp_path / "nowhere": r"nowhere: no such folder\. Unpack PA-100K so that manual_dir",
        tmp_path / "empty": r"empty: the folder is empty\. Unpack PA-100K",
        raw / "PA-100K" / "annotation": r"annotation: no folder .* It seems to be in .*PA-100K",
        tmp_path: r"no folder release_data.*found data, empty, raw\. It seems to be in .*PA-100K:",
    }.items():
        with pytest.raises(FileNotFoundError, match=message):
            prepare("pa100k", manual_dir=given, data_dir=tmp_path / "data")
    assert folder_contents(tmp_path / "empty") == [".DS_Store", "@eaDir"]
    assert not (tmp_path / "data").exists()
