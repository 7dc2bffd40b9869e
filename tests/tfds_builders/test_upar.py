"""UPAR: its configs, the pictures in every place, what is beside the labels, what can be wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upar_files import HEADER, IMAGES, PETA, PLACES, beside, labels, small_upar, write

from aima_jax.data import prepared
from aima_jax.text import TEMPLATES, PromptTemplate
from aima_jax.text.tokenizer import encode
from tfds_builders.prepare import prepare
from tfds_builders.upar.builder import Upar, read_annotations
from tfds_builders.upar.schema import COLUMNS, FILE_NAMES, SCHEMA
from tfds_builders.upar.wording import WORDING

# DATASETS.md's line of the real file, in words written from it.
REAL = (
    "PETA/images/18987.png,0,1,0,0,1,0,0,1,1,0,0,0,0,0,0,0,0,0,0,0,"
    "1,0,0,0,0,0,0,0,0,0,1,0,0,1,0,0,0,0,0,1"
)


def test_a_real_line(tmp_path):
    write(tmp_path / "val.csv", [HEADER], [REAL])
    found = read_annotations(tmp_path / "val.csv")
    assert found.images == ["PETA/images/18987.png"]
    held = {name for name, bit in zip(SCHEMA.names, found.attributes[0], strict=True) if bit}
    assert held == {
        "age=adult",
        "hair=short",
        "sleeve=short",
        "upper_color=black",
        "lower_length=short",
        "lower_color=white",
        "lower_type=trousers_or_shorts",
        "hat",
    }
    text = PromptTemplate(SCHEMA, "sentence", WORDING).render(found.attributes[0]).text
    assert text == (
        "An adult man with short hair wears a short-sleeved black top, short white pants and a hat."
    )


def test_columns_are_the_40_of_the_files():
    assert len(COLUMNS) == SCHEMA.size == 40
    assert FILE_NAMES[:8] == (
        "Age-Young",
        "Age-Adult",
        "Age-Old",
        "Gender-Female",
        "Hair-Length-Short",
        "Hair-Length-Long",
        "Hair-Length-Bald",
        "UpperBody-Length-Short",
    )
    colors = ("Black", "Blue", "Brown", "Green", "Grey", "Orange", "Pink", "Purple", "Red")
    colors += ("White", "Yellow", "Other")
    assert FILE_NAMES[8:20] == tuple(f"UpperBody-Color-{color}" for color in colors)
    assert FILE_NAMES[20] == "LowerBody-Length-Short"
    assert FILE_NAMES[21:33] == tuple(f"LowerBody-Color-{color}" for color in colors)
    assert FILE_NAMES[33:] == (
        "LowerBody-Type-Trousers&Shorts",
        "LowerBody-Type-Skirt&Dress",
        "Accessory-Backpack",
        "Accessory-Bag",
        "Accessory-Glasses-Normal",
        "Accessory-Glasses-Sun",
        "Accessory-Hat",
    )


bit_vectors = st.integers(0, 2**40 - 1).map(
    lambda n: np.array([n >> k & 1 for k in range(40)], np.uint8)
)


@settings(deadline=None, max_examples=300)
@given(st.lists(bit_vectors, min_size=1, max_size=4), st.integers(0, 39))
def test_sentences_are_short_distinct_and_their_spans_exact(vectors, flipped):
    neighbour = vectors[0].copy()
    neighbour[flipped] ^= 1
    distinct = {vector.tobytes(): vector for vector in (*vectors, neighbour)}.values()
    for name in TEMPLATES:
        template = PromptTemplate(SCHEMA, name, WORDING)
        sentences = [template.render(vector) for vector in distinct]
        assert len({sentence.text for sentence in sentences}) == len(distinct)
        for vector, sentence in zip(distinct, sentences, strict=True):
            assert len(encode(sentence.text)) + 2 <= 77
            words = {
                phrase.name: sentence.text[phrase.start : phrase.end] for phrase in sentence.phrases
            }
            held = {bit for bit, holds in zip(SCHEMA.names, vector, strict=True) if holds}
            assert held <= set(words)
            for name, said in words.items():
                if name in held:
                    value = name.split("=")[-1]
                    expected = WORDING.words.get(name, value).removeprefix("a ")
                elif name in WORDING.absences:
                    expected = WORDING.absences[name]
                else:  # the word for an absence that every sentence says
                    expected = {"gender": "man", "sleeve": "long-sleeved", "lower_length": "long"}[
                        name
                    ]
                assert said.lower() == expected


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**6 - 1))
def test_the_longest_sentences_fit(flags):
    """With all colors on, whatever else holds: the most that any vector has."""
    vector = np.ones(40, np.uint8)
    for place, name in enumerate(
        ("backpack", "bag", "glasses", "sunglasses", "hat", "lower_length=short")
    ):
        vector[SCHEMA.names.index(name)] = flags >> place & 1
    for name in TEMPLATES:
        assert len(encode(PromptTemplate(SCHEMA, name, WORDING).render(vector).text)) + 2 <= 77


@pytest.mark.parametrize("layout", ["{}.csv", "task2/{}/gt.csv"])
@pytest.mark.parametrize("place", PLACES)
def test_every_config_has_the_pictures_of_its_domains_in_the_files_order(tmp_path, place, layout):
    raw = small_upar(tmp_path, place, layout)
    domains = {"market1501": "Market", "pa100k": "PA100k", "peta": "PETA"}
    expected = {"all": ((*domains,), (*domains,))}
    for name in domains:
        expected[name] = ((name,), (name,))
        expected[f"without_{name}"] = (tuple(d for d in domains if d != name), (name,))
    assert {config.name for config in Upar.BUILDER_CONFIGS} == set(expected)
    assert Upar.config_name("") == "all"
    for config, (train, test) in expected.items():
        splits = Upar(config=config, data_dir=tmp_path / "data").splits(raw)
        for split, file, of in (("train", "train", train), ("test", "val", test)):
            wanted = [i for i in IMAGES[file] if i.startswith(tuple(domains[d] for d in of))]
            assert [record.filename for record in splits[split].records] == wanted
            assert all(record.image.is_file() for record in splits[split].records)


def test_prepared(tmp_path, caplog):
    raw = beside(small_upar(tmp_path / "raw"))
    folder = prepare("upar", manual_dir=raw, data_dir=tmp_path / "data")
    assert folder == tmp_path / "data" / "upar" / "all" / "1.0.0"
    assert prepared.read_verified(folder)["counts"] == {"train": 4, "test": 3}
    stored = prepared.load_labels(folder, "test")
    assert stored["filename"].tolist() == IMAGES["val"]
    np.testing.assert_array_equal(stored["attributes"], labels("val"))
    train, val = (record.getMessage() for record in caplog.records)
    assert "train.csv has 4 pictures (market1501 1, pa100k 2, peta 1) of 3 distinct" in train
    assert "97,669 pictures (market1501 10,000, pa100k 79,001, peta 8,668) of 7,204 di" in train
    assert "val.csv has 3 pictures" in val and "33,407 pictures" in val and "3,462 distinct" in val


def test_only_the_domains_that_are_asked_for_need_pictures(tmp_path):
    raw = small_upar(tmp_path / "raw")
    for path in (raw / "PETA" / "images").iterdir():
        path.unlink()
    assert Upar(config="without_peta", data_dir=tmp_path).splits  # built without files
    assert Upar(config="market1501", data_dir=tmp_path).splits(raw)["train"].count == 1
    with pytest.raises(FileNotFoundError, match=r"no folder images with pictures"):
        Upar(config="all", data_dir=tmp_path).splits(raw)


def change(path, old, new):
    def spoil(raw):
        file = raw / "annotations" / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return spoil


def remove_picture(raw):
    (raw / "PETA" / "images" / "00002.png").unlink()


def repeat_row(raw):
    file = raw / "annotations" / "val.csv"
    file.write_text(file.read_text() + file.read_text().splitlines()[1] + "\n")


def swap_queries(raw):
    file = raw / "annotations" / "task2" / "val" / "queries.csv"
    header, first, second = file.read_text().splitlines()
    file.write_text("\n".join([header, second, first]))


def drop_id(raw):
    file = raw / "annotations" / "task2" / "val" / "ids.csv"
    file.write_text("\n".join(file.read_text().splitlines()[1:]))


def same_picture(raw):
    change("val.csv", PETA[1], PETA[0])(raw)
    (raw / "annotations" / "task2" / "val" / "ids.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            remove_picture,
            r"00002\.png: no such picture; 1 of the 3 that the annotations list are m",
        ),
        (repeat_row, r"val\.csv: line 5 lists PA100k/.*/000003\.jpg, which is also in line 2"),
        (
            swap_queries,
            r"queries\.csv: its 2 rows are not the 2 distinct descriptions of .*val\.csv",
        ),
        (drop_id, r"ids\.csv lists 2 pictures; .*val\.csv lists 3"),
        (
            change("task2/val/ids.csv", f"{PETA[1]},", f"{PETA[1]},9"),
            r"ids\.csv: line 2 is .*disagr",
        ),
        (same_picture, r"train and val share 1 pictures, such as PETA/images/00001\.png"),
        (
            change("val.csv", "# image", "# path"),
            r"val\.csv: line 1, column 1 is 'path'; expected 'im",
        ),
        (
            change("val.csv", "Age-Old", "Age"),
            r"val\.csv: line 1, column 4 is 'Age'; expected 'Age-Old'",
        ),
        (change("val.csv", ",Accessory-Hat", ""), r"val\.csv: line 1 has 40 columns; expected 41"),
        (
            change("val.csv", f"{PETA[1]},", f"{PETA[1]},2"),
            r"val\.csv: line 3, Age-Young is '2[01]'; exp",
        ),
        (
            change("val.csv", f"{PETA[1]},", f"{PETA[1]},0,"),
            r"val\.csv: line 3 has 42 columns; expected",
        ),
        (
            change("val.csv", PETA[1], "PETA/../2.png"),
            r"line 3, image is 'PETA/\.\./2\.png'; expected",
        ),
        (
            change("task2/val/queries.csv", "Age-Old", "Old"),
            r"queries\.csv: line 1, column 3 is 'Old'",
        ),
    ],
)
def test_bad_input(tmp_path, spoil, message):
    raw = beside(small_upar(tmp_path / "raw"))
    spoil(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare("upar", manual_dir=raw, data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()
