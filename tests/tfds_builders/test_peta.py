"""PETA: the person-search split, the random ones, the records, and what can be wrong."""

import numpy as np
import PIL.Image
import pytest
import scipy.io
import tensorflow_datasets as tfds
from stand_ins import peta_labels, picture, small_peta, write_pictures

from aima_jax.data import prepared
from tfds_builders.peta import builder
from tfds_builders.peta.builder import Peta, read_labels, sal_split
from tfds_builders.peta.schema import SCHEMA as peta_schema
from tfds_builders.peta.schema import SCHEMA_35 as peta35_schema
from tfds_builders.prepare import prepare

LABELS = "annotations/peta/PETA.mat"


def categories(attributes):
    return {tuple(row) for row in np.asarray(attributes).tolist()}


def write_labels(folder, change):
    content = peta_labels(44)
    change(content["peta"])
    scipy.io.savemat(folder / "PETA.mat", content)


@pytest.fixture(scope="module")
def full_peta(shared_data, tmp_path_factory):
    """All 19,000 file names, with stand-in pictures."""
    folder = tmp_path_factory.mktemp("peta")
    write_pictures(folder / "PETA" / "images", [f"{n:05d}.png" for n in range(1, 19_001)])
    (folder / "PETA.mat").write_bytes((shared_data / LABELS).read_bytes())
    return folder


def test_labels_have_the_known_counts(shared_data):
    labels = read_labels(shared_data / LABELS)
    assert labels.attributes.shape == (19_000, 105)
    assert len(categories(labels.attributes)) == 7_769
    names = np.array(peta_schema.names)
    held = {
        group: labels.attributes[:, np.char.startswith(names, f"{group}=")].sum(1)
        for group in ("age", "gender", "upper_color")
    }
    assert ((held["age"] == 0).sum(), (held["age"] == 2).sum(), held["age"].max()) == (28, 4, 2)
    assert (held["gender"] == 0).sum() == 1
    assert (held["upper_color"] >= 2).sum() == 2_105
    assert labels.attributes.sum(1).max() == 20


def test_labels_are_the_files_columns(shared_data):
    raw = scipy.io.loadmat(shared_data / LABELS)["peta"][0, 0]
    labels = read_labels(shared_data / LABELS)
    np.testing.assert_array_equal(labels.attributes, raw["data"][:, 4:])
    np.testing.assert_array_equal(labels.identity, raw["data"][:, 1])
    names = [str(name[0]) for name in raw["attribute"].ravel()]
    assert names.index("personalMale") == peta_schema.names.index("gender=male") == 16
    assert names.index("lowerBodyGrey") == peta_schema.names.index("lower_color=gray")
    usual = raw["selected_attribute"].ravel().astype(int) - 5
    assert [peta_schema.names[column] for column in usual] == list(peta35_schema.names)
    for number, splits in enumerate(labels.random_splits):
        partition = raw["partion_attribute"][number, 0][0, 0]
        for split, rows in splits.items():
            np.testing.assert_array_equal(rows + 1, np.sort(partition[split].ravel()))


def test_sal_split_is_the_recipes(shared_data):
    """SAL's recipe step by step, with numpy's global generator as its authors use it."""
    rows = [tuple(row) for row in read_labels(shared_data / LABELS).attributes.tolist()]
    pictures = {}
    for number, row in enumerate(rows):
        pictures.setdefault(row, []).append(number)
    several = [category for category, members in pictures.items() if len(members) > 1]
    assert len(several) == 2_090
    assert sum(len(pictures[category]) for category in several) == 13_321
    state = np.random.get_state()
    np.random.seed(1)
    drawn = np.random.choice(2_090, 1_890, replace=False)
    np.random.set_state(state)
    train = {several[number] for number in drawn}
    expected = {"train": [], "test": []}
    for number, row in enumerate(rows):
        if len(pictures[row]) > 1:
            expected["train" if row in train else "test"].append(number)

    split = sal_split(read_labels(shared_data / LABELS).attributes)
    assert {name: chosen.tolist() for name, chosen in split.items()} == expected
    assert {name: len(chosen) for name, chosen in split.items()} == {"train": 11_886, "test": 1_435}


def test_sal_split_leaves_the_global_generator_alone(shared_data):
    attributes = read_labels(shared_data / LABELS).attributes
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    sal_split(attributes)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize(("suffix", "schema"), [("", peta_schema), ("_35", peta35_schema)])
def test_random_splits(full_peta, tmp_path, number, suffix, schema):
    builder = Peta(config=f"random{number}{suffix}", data_dir=tmp_path)
    assert builder.schema == schema
    splits = builder.splits(full_peta)
    sizes = {name: split.count for name, split in splits.items()}
    assert sizes == {"train": 9_500, "val": 1_900, "test": 7_600}
    records = [record for split in splits.values() for record in split.records]
    assert len({record.filename for record in records}) == 19_000
    assert all(record.attributes.shape == (schema.size,) for record in records)


@pytest.mark.slow
def test_full_size(full_peta, shared_data, tmp_path):
    folder = prepare("peta", manual_dir=full_peta, data_dir=tmp_path)
    assert folder == tmp_path / "peta" / "sal" / "1.0.0"
    assert prepared.read_verified(folder)["counts"] == {"train": 11_886, "test": 1_435}
    train, test = (prepared.load_labels(folder, split) for split in ("train", "test"))
    assert len(categories(train["attributes"])) == 1_890
    assert len(categories(test["attributes"])) == 200
    assert not categories(test["attributes"]) & categories(train["attributes"])
    raw = scipy.io.loadmat(shared_data / LABELS)["peta"][0, 0]["data"]
    for labels in (train, test):
        assert list(labels["filename"]) == sorted(labels["filename"])
        rows = np.array([int(str(name)[7:12]) - 1 for name in labels["filename"]])
        assert all(
            name == f"images/{row + 1:05d}.png"
            for name, row in zip(labels["filename"], rows, strict=True)
        )
        np.testing.assert_array_equal(labels["attributes"], raw[rows, 4:])
        np.testing.assert_array_equal(labels["identity"], raw[rows, 1])
        assert (labels["camera"] == -1).all()


def test_records_keep_the_bytes(tmp_path):
    raw = small_peta(tmp_path / "raw")
    folder = prepare("peta/random2_35", manual_dir=raw, data_dir=tmp_path / "data")
    source = tfds.builder_from_directory(folder).as_data_source(
        "val", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert len(source) == 11
    for record in source:
        assert record["image"] == (raw / record["filename"].decode()).read_bytes()
        assert record["attributes"].shape == (35,)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "PETA.mat"),
        ("PETA/images", "PETA/PETA.mat"),
        ("PETA/images", "PETA.mat"),
    ],
)
def test_layouts(tmp_path, images, labels):
    made = small_peta(tmp_path / "made")
    for target, source in ((images, "images"), (labels, "PETA.mat")):
        (tmp_path / "raw" / target).parent.mkdir(parents=True, exist_ok=True)
        (made / source).rename(tmp_path / "raw" / target)
    splits = Peta(data_dir=tmp_path / "data").splits(tmp_path / "raw")
    assert {name: split.count for name, split in splits.items()} == {"train": 38, "test": 6}


# Of the small archive below: as the authors', but the numbers.
SIZES = {"3DPeS": 3, "GRID": 2, "i-LID": 1, "MIT": 38}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """44 pictures as the authors pack them, of which one is a BMP."""
    monkeypatch.setattr(builder, "_COLLECTIONS", SIZES)
    raw = tmp_path / "raw"
    for name, count in SIZES.items():
        names = [f"{number:03d}.jpg" for number in range(count)]
        write_pictures(raw / "PETA dataset" / name / "archive", names)
        (raw / "PETA dataset" / name / "archive" / "Label.txt").write_text("1 personalMale")
    (raw / "PETA dataset/GRID/archive/000.jpg").unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(raw / "PETA dataset/GRID/archive/000.bmp")
    scipy.io.savemat(raw / "PETA.mat", peta_labels(44))
    return raw


@pytest.mark.parametrize("level", ["", "PETA", "PETA dataset"])
def test_pictures_as_the_authors_pack_them_are_numbered_by_collection(archive, tmp_path, level):
    if level == "PETA":
        archive = archive.rename(tmp_path / "PETA").parent
    elif level:
        archive = archive / level
    splits = Peta(config="random1", data_dir=tmp_path / "data").splits(archive)
    records = [record for split in splits.values() for record in split.records]
    records.sort(key=lambda record: record.filename)
    names = [record.filename for record in records]
    assert names == [f"images/{number:05d}.png" for number in range(1, 45)]
    places = [(record.image.parents[1].name, record.image.name) for record in records[:7]]
    assert places == [
        ("3DPeS", "000.jpg"),
        ("3DPeS", "001.jpg"),
        ("3DPeS", "002.jpg"),
        ("GRID", "000.bmp"),
        ("GRID", "001.jpg"),
        ("i-LID", "000.jpg"),
        ("MIT", "000.jpg"),
    ]
    expected = peta_labels(44)["peta"]["data"][:, 4:]
    np.testing.assert_array_equal([record.attributes for record in records], expected)


def test_a_bmp_is_stored_without_loss(archive, tmp_path):
    folder = prepare("peta/random1", manual_dir=archive, data_dir=tmp_path / "data")
    stored = tfds.builder_from_directory(folder)
    pictures = {
        record["filename"].decode(): record["image"]
        for split in stored.info.splits
        for record in stored.as_data_source(split)
    }
    original = PIL.Image.open(archive / "PETA dataset/GRID/archive/000.bmp")
    np.testing.assert_array_equal(pictures["images/00004.png"], np.asarray(original))


def test_a_collection_with_another_number_of_pictures_is_named(archive, tmp_path):
    (archive / "PETA dataset/MIT/archive/000.jpg").unlink()
    (archive / "PETA dataset/i-LID").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"archive/: i-LID has 0, not 1; MIT has 37, not 38\. Unp"):
        prepare("peta", manual_dir=archive, data_dir=tmp_path / "data")


def test_the_authors_collections_are_19000_pictures():
    assert sum(builder._COLLECTIONS.values()) == 19_000
    assert list(builder._COLLECTIONS) == sorted(builder._COLLECTIONS, key=str.lower)


def spoil_missing(raw):
    (raw / "images" / "00005.png").unlink()


def spoil_unlisted(raw):
    (raw / "images" / "00045.png").write_bytes(picture(0, "PNG"))


def spoil_file_name(raw):
    (raw / "images" / "00005.png").rename(raw / "images" / "five.png")


def spoil_picture(raw):
    (raw / "images" / "00005.png").unlink()
    (raw / "images" / "00005.png").write_bytes(picture(0, "PNG")[:-30])


def spoil_huge_picture(raw):
    (raw / "images" / "00005.png").unlink()
    PIL.Image.new("L", (4097, 4096)).save(raw / "images" / "00005.png")


def spoil_no_labels(raw):
    (raw / "PETA.mat").unlink()


def spoil_truncated(raw):
    data = (raw / "PETA.mat").read_bytes()
    (raw / "PETA.mat").write_bytes(data[:5000])


def spoil_other_dataset(raw):
    scipy.io.savemat(raw / "PETA.mat", {"market_attribute": {"train": 1}})


def spoil_names(raw):
    def change(peta):
        peta["attribute"][3, 0] = "personalTall"

    write_labels(raw, change)


def spoil_columns(raw):
    write_labels(raw, lambda peta: peta.update(data=peta["data"][:, :40]))


def spoil_label(raw):
    def change(peta):
        peta["data"][7, 50] = 2

    write_labels(raw, change)


def spoil_numbers(raw):
    write_labels(raw, lambda peta: peta.update(data=peta["data"][::-1]))


def spoil_partition(raw):
    def change(peta):
        peta["partion_attribute"][1, 0]["val"] = np.array([[1], [45]])

    write_labels(raw, change)


def spoil_partition_count(raw):
    write_labels(raw, lambda peta: peta.update(partion_attribute=peta["partion_attribute"][:2]))


def spoil_folder(raw):
    for path in (raw / "images").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, r"images: 43 pictures, but .*PETA\.mat lists 44; missing: 00005\.png"),
        (spoil_unlisted, r"images: 45 pictures, but .* lists 44; without labels: 00045\.png"),
        (spoil_file_name, r"images: 44 pictures, .*missing: 00005\.png"),
        (spoil_picture, r"images/00005\.png: cannot be decoded"),
        (spoil_huge_picture, r"images/00005\.png: .*4097×4096 pixels\); expected a JPEG or PNG"),
        (spoil_no_labels, r"PETA\.mat: no such file; looked in"),
        (spoil_truncated, r"PETA\.mat: cannot be read \(.*\); expected the MATLAB file with PETA"),
        (spoil_other_dataset, r"PETA\.mat: not PETA's label file: it lacks peta; found market"),
        (
            spoil_names,
            r"PETA\.mat: the names in peta\.attribute are not the 105 attributes of PETA",
        ),
        (spoil_columns, r"PETA\.mat: peta\.data has shape \(44, 40\); expected 109 columns"),
        (spoil_label, r"PETA\.mat: peta\.data has labels other than 0 and 1"),
        (spoil_numbers, r"PETA\.mat: column 1 of peta\.data does not count from 1 to 44"),
        (spoil_partition, r"PETA\.mat: peta\.partion_attribute 2 repeats a picture, or has one o"),
        (spoil_partition_count, r"PETA\.mat: peta\.partion_attribute has 2 members; expected 5"),
        (spoil_folder, r"no folder images with pictures here; found PETA\.mat, images\."),
    ],
)
def test_bad_input(tmp_path, spoil, message):
    raw = small_peta(tmp_path / "raw")
    spoil(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare("peta/random1", manual_dir=raw, data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()
