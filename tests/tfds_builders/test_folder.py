"""One's own data: the worked example, wording made from names, splits, and what can be wrong."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import folder_contents

from aima_jax import cli
from aima_jax.attributes import AttributeSchema, Group
from aima_jax.data import open_dataset, prepared
from aima_jax.text import TEMPLATES, PromptTemplate
from configs import folder as config
from tfds_builders.folder.builder import Folder, draw_splits
from tfds_builders.folder.schema import Shares, read_schema
from tfds_builders.folder.wording import generate
from tfds_builders.prepare import prepare


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The worked example of the docs, by the docs' command."""
    folder = tmp_path_factory.mktemp("own") / "mine"
    command = [sys.executable, "-m", "tfds_builders.folder.example", str(folder)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def raw(example, tmp_path):
    return shutil.copytree(example, tmp_path / "mine")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_example_is_prepared_described_and_read_as_it_is_written(example, tmp_path, capsys):
    assert len(list(example.glob("*.jpg"))) == 60
    places = [f"--data_dir={tmp_path}"]
    assert cli.main(["prepare", "folder/example", f"--manual_dir={example}", *places]) == 0
    assert cli.main(["describe", "folder/example", *places, f"--picture={tmp_path}/p.png"]) == 0
    assert "folder/example: 29 attributes" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "folder" / "example" / "1.0.0")
    assert dataset.traits == {"cameras": False, "query_folder": None, "identities": True}
    rows = [line.split(",") for line in (example / "labels.csv").read_text().splitlines()]
    told = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    people = {}
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        people[name] = set(split.identity.tolist())
        for place, image in enumerate(split.filename):
            row = told.pop(str(image))
            bits = dataset.schema.decode(split.attributes[place])
            values = {group: str(int(v)) if isinstance(v, bool) else v for group, v in bits.items()}
            assert values == {group: row[group] for group in bits}
            assert str(split.identity[place]) == row["identity"]
            assert str(split.camera[place]) == row["camera"]
            assert split.bytes(place) == (example / str(image)).read_bytes()
    assert not told
    assert not people["train"] & people["test"] and not people["train"] & people["val"]


def test_wording_from_names_is_english(example):
    content = read_schema(example / "schema.json")
    said = {
        "gender": "female",
        "age": "old",
        "hair": "long",
        "hat": True,
        "upper_color": "red",
        "lower_type": "skirt",
        "lower_color": "black",
        "bag": "none",
    }
    texts = {
        name: PromptTemplate(content.schema, name, content.wording)
        .render(content.schema.encode(said))
        .text
        for name in TEMPLATES
    }
    assert texts == {
        "sentence": "An old woman with long hair wears a red top, a black skirt and a hat.",
        "list": "old woman, long hair, red top, black skirt, hat",
        "absence": "An old woman with long hair wears a red top, a black skirt and a hat, "
        "and has no bag.",
    }


@pytest.mark.parametrize(
    ("groups", "said", "text"),
    [
        (
            (Group("sleeve", "exclusive", ("short", "long")), Group("glasses", "flag")),
            {"sleeve": "short", "glasses": True},
            "A person wears a short-sleeved top and glasses.",
        ),
        (
            (Group("hat", "flag"), Group("hat_color", "exclusive", ("red",), absent="none")),
            {"hat": True, "hat_color": "red"},
            "A person wears a red hat.",
        ),
        (
            (Group("age", "exclusive", ("18-60", "over_60")), Group("tattoo", "flag")),
            {"age": "over_60", "tattoo": True},
            "An over-60-year-old person has a tattoo.",
        ),
        (
            (Group("mood", "exclusive", ("happy", "sad")), Group("view", "exclusive", ("front",))),
            {"mood": "happy", "view": "front"},
            "This is a person with a happy mood in front view.",
        ),
        (
            (
                Group("upper_length", "exclusive", ("short",), absent="long"),
                Group("upper_style", "exclusive", ("short", "wide")),
            ),
            {"upper_length": "short", "upper_style": "short"},
            "A person wears a short-length short-style top.",
        ),
        (
            (Group("shoe_color", "independent", ("red", "blue")), Group("umbrella", "flag")),
            {"shoe_color": ("red", "blue"), "umbrella": True},
            "A person wears red and blue footwear, and carries an umbrella.",
        ),
    ],
)
def test_names_of_many_kinds(groups, said, text):
    schema = AttributeSchema("many", groups)
    template = PromptTemplate(schema, "sentence", generate(schema))
    assert template.render(schema.encode(said)).text == text


NAMES = ["upper_color", "upper_type", "lower_length", "hat", "bag", "mood", "zorb", "hair", "age"]
NAMES += ["gender", "view", "sleeve", "beard_style", "phone", "shoe_type", "upper_body_pattern"]
names = st.sampled_from(NAMES)
words = st.sampled_from(
    ["red", "blue", "short", "long", "plain", "dark_green", "jacket", "a-b", "x7"]
)


@st.composite
def schemas(draw):
    groups = []
    for name in draw(st.lists(names, min_size=1, max_size=6, unique=True)):
        kind = draw(st.sampled_from(["flag", "exclusive", "independent"]))
        values = (
            ()
            if kind == "flag"
            else tuple(draw(st.lists(words, min_size=1, max_size=3, unique=True)))
        )
        absent = draw(st.sampled_from([None, "none"])) if kind == "exclusive" else None
        groups.append(Group(name, kind, values, absent))
    return AttributeSchema("drawn", tuple(groups))


@settings(deadline=None, max_examples=150)
@given(schemas(), st.data())
def test_generated_sentences_say_every_bit_and_tell_descriptions_apart(schema, data):
    described = []
    for _ in range(3):
        description = {}
        for group in schema.groups:
            if group.kind == "independent":
                value = tuple(v for v in group.values if data.draw(st.booleans()))
            else:
                value = data.draw(st.sampled_from(group.answers or (True, False)))
            description[group.name] = value
        described.append(schema.encode(description))
    distinct = np.unique(described, axis=0)
    wording = generate(schema)
    for name in TEMPLATES:
        sentences = [PromptTemplate(schema, name, wording).render(bits) for bits in distinct]
        assert len({sentence.text for sentence in sentences}) == len(distinct)
        for bits, sentence in zip(distinct, sentences, strict=True):
            held = {bit for bit, holds in zip(schema.names, bits, strict=True) if holds}
            assert held <= {phrase.name for phrase in sentence.phrases}


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 20).map(str), min_size=2, max_size=60),
    st.floats(0, 0.4),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_splits_are_drawn_by_person(people, val, test, seed):
    shares = Shares(val, test, seed)
    split = draw_splits(people, shares)
    assert split == draw_splits(people, shares)
    of = {who: {s for s, p in zip(split, people, strict=True) if p == who} for who in people}
    assert all(len(splits) == 1 for splits in of.values())
    assert "test" in split
    most = max(people.count(who) for who in people)
    assert abs(split.count("test") - test * len(people)) <= most
    # Another order of the file draws the same.
    order = np.random.default_rng(0).permutation(len(people))
    assert draw_splits([people[i] for i in order], shares) == [split[i] for i in order]


def test_splits_of_a_column_bits_as_columns_absences_and_names_as_identities(raw, tmp_path):
    schema = {
        "name": "shop",
        "groups": [
            {"name": "color", "kind": "independent", "values": ["red", "blue"]},
            {"name": "size", "kind": "exclusive", "values": ["s", "l"], "absent": "none"},
            {"name": "hat", "kind": "flag"},
        ],
        "wording": {"words": {"size=s": "small"}},
        "traits": {"cameras": True, "query_folder": None, "identities": True},
    }
    (raw / "schema.json").write_text(json.dumps(schema))
    (raw / "deep").mkdir()
    (raw / "00.jpg").rename(raw / "deep" / "a b.jpg")
    (raw / "labels.csv").write_bytes(
        b"\xef\xbb\xbfimage,split,identity,camera,color,size=s,size=l,hat\r\n"
        b"deep\\a b.jpg,test,zoe,2,red;blue,0,0,1\r\n\r\n"
        b'"01.jpg",train,adam,,,1,0,0\r\n02.jpg,train,,3, blue ,0,1,0\r\n'
    )
    folder = prepare("folder/shop", manual_dir=raw, data_dir=tmp_path / "data")
    manifest = prepared.read_verified(folder)
    assert manifest["counts"] == {"train": 2, "test": 1}
    assert manifest["traits"]["cameras"] is True
    assert manifest["wording"]["words"]["size=s"] == "small"
    train, test = (prepared.load_labels(folder, split) for split in ("train", "test"))
    assert test["filename"].tolist() == ["deep/a b.jpg"]
    assert test["attributes"].tolist() == [[1, 1, 0, 0, 1]]
    assert train["attributes"].tolist() == [[0, 0, 1, 0, 0], [0, 1, 0, 1, 0]]
    assert (test["identity"].tolist(), train["identity"].tolist()) == ([1], [0, -1])
    assert (test["camera"].tolist(), train["camera"].tolist()) == ([2], [-1, 3])


def test_pictures_that_are_not_listed_are_told_of(raw, tmp_path, capsys):
    (raw / "more").mkdir()
    picture = next(raw.glob("*.jpg")).read_bytes()
    for name in ("extra.jpg", "more/other.jpg", "._extra.jpg", "more/.DS_Store"):
        (raw / name).write_bytes(picture)
    prepare("folder/example", manual_dir=raw, data_dir=tmp_path / "data")
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    expected = "2 pictures that labels.csv does not list, such as extra.jpg, more/other.jpg"
    assert told == [f"left out: {expected}"]


def test_changed_files_are_refused_with_the_command_that_prepares_anew(raw, tmp_path, capsys):
    data = tmp_path / "my data"
    folder = prepare("folder/example", manual_dir=raw, data_dir=data)
    assert prepare("folder/example", manual_dir=raw, data_dir=data) == folder
    assert prepare("folder/example", manual_dir=tmp_path / "gone", data_dir=data) == folder
    edit(raw / "labels.csv", ",male,child,", ",female,child,")
    with pytest.raises(ValueError, match=r"labels\.csv has changed since folder/example was") as e:
        prepare("folder/example", manual_dir=raw, data_dir=data)
    remove, again = str(e.value).split("again with: ")[1].split(" && ")
    subprocess.run(remove, shell=True, check=True)
    subprocess.run(
        f"{sys.executable} -m aima_jax.cli {again.removeprefix('aima ')}", shell=True, check=True
    )
    assert prepare("folder/example", manual_dir=raw, data_dir=data) == folder


def test_the_config_names_the_dataset():
    assert config.get_config("shop").dataset == "folder/shop"
    assert config.get_config("shop,small").model.variant == "tiny"
    for wrong in ("", "shop,tiny"):
        with pytest.raises(ValueError, match=r"expected configs/folder\.py:NAME or :NAME,small"):
            config.get_config(wrong)


FIRST = "00.jpg,42,0,male,child,short,0,black,pants,white,backpack"


def labels(old, new):
    return lambda raw: edit(raw / "labels.csv", old, new)


def same_words(raw):
    given = '"example", "wording": {"words": {"upper_color=white": "black"}},'
    edit(raw / "schema.json", '"example",', given)
    second = (raw / "labels.csv").read_text().splitlines()[2]
    edit(raw / "labels.csv", second, FIRST.replace("00.jpg", "01.jpg").replace("black", "white"))


def schema(old, new):
    return lambda raw: edit(raw / "schema.json", old, new)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            labels("image,", "picture,"),
            r"line 1, column 1: 'picture' is not a group or bit of",
        ),
        (
            labels(",hat,", ",hatt,"),
            r"labels\.csv: line 1, column 7: 'hatt' is not .* mean 'hat'\?",
        ),
        (labels(",hat,", ",age,"), r"labels\.csv: line 1, column 5: 'age' appears twice"),
        (
            labels("camera,gender", "camera,gender=male"),
            r"line 1: gender needs a column gender, or",
        ),
        (labels(",male,", ",mail,"), r"line 2, gender is 'mail'; expected male, female"),
        (labels(",male,", ",,"), r"labels\.csv: line 2, gender is ''; expected male, female"),
        (labels(",male,", ",male;female,"), r"line 2, gender is 'male;female'; expected one value"),
        (labels(",short,0,", ",short,2,"), r"labels\.csv: line 2, hat is '2'; expected 0 or 1"),
        (labels(",short,0,", ",short,"), r"labels\.csv: line 2 has 10 columns; expected 11"),
        (labels("01.jpg", "00.jpg"), r"labels\.csv: line 3, image: 00\.jpg is also in line 2"),
        (labels("01.jpg", "99.jpg"), r"labels\.csv: line 3, image: no such picture: 99\.jpg"),
        (labels("01.jpg", "../01.jpg"), r"line 3, image is '\.\./01\.jpg'; expected a path below"),
        (labels("01.jpg", "/etc/passwd"), r"line 3, image is '/etc/passwd'; expected a path below"),
        (labels("identity,", "split,"), r"labels\.csv: line 2, split is '42'; expected train, val"),
        (labels(FIRST, '"' + FIRST), r"labels\.csv: line 61 is not CSV: unexpected end of data"),
        (schema('"groups"', '"group"'), r"schema\.json: line 3: 'group' is unknown; expected name"),
        (schema('"groups": [', '"groups": ['[:-1]), r"schema\.json: line 5, column 5: not JSON"),
        (schema('"kind": "flag"', '"kind": "flags"'), r"line \d+, .*: .*kind is 'flags'; expected"),
        (
            schema('["male", "female"]', '["male", "male"]'),
            r"line 4, gender: a value is given twice",
        ),
        (
            schema('["male", "female"]', '["male", "fe,male"]'),
            r"line 4, gender: value 'fe,male': ex",
        ),
        (
            schema('"name": "hat"', '"name": "split"'),
            r"line 7, split: a group cannot have a reserved",
        ),
        (
            schema('"example"', '"shop"'),
            r"names the dataset 'shop'; expected 'example', or the dat",
        ),
        (schema('"example",', '"example", "splits": {"test": 2},'), "line 2, splits: val and"),
        (
            schema('"example",', '"example", "splits": {"tests": 0.2},'),
            r"line 2, splits: expected an object with val, test, seed",
        ),
        (
            schema('"example",', '"example", "wording": {"a": 1},'),
            r"line 2, wording: expected an ob",
        ),
        (
            same_words,
            r"labels\.csv: lines \d+ and \d+ differ but have the same sentence; give schema\.json",
        ),
        (
            schema(
                '"example",', '"example", "wording": {"words": {"hat": "a ' + "big " * 80 + '"}},'
            ),
            r"labels\.csv: line \d+: its sentence has more than 77 tokens; use shorter",
        ),
    ],
)
def test_bad_input(raw, tmp_path, spoil, message):
    spoil(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare("folder/example", manual_dir=raw, data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_missing_files_and_names(raw, tmp_path):
    (raw / "labels.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"labels\.csv: no such file\. Give the folder with"
    ):
        prepare("folder/example", manual_dir=raw, data_dir=tmp_path / "data")
    for name in ("folder", "folder/", "folder/../x"):
        with pytest.raises(ValueError, match=r"expected folder/ and the name in schema\.json"):
            prepare(name, manual_dir=raw, data_dir=tmp_path / "data")
    assert "data" not in folder_contents(tmp_path)


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_damaged_files_give_one_message(example, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        shutil.copytree(example, folder)
    for name in (files := ("labels.csv", "schema.json")):
        (folder / name).write_bytes((example / name).read_bytes())
    path = folder / data.draw(st.sampled_from(files))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged) - 1))
        pieces = [b"", b"\xff", b'"', b"\n", b"\0", b",", b"1", b"[", b"]", b"{}", b"null", b":"]
        damaged[start : start + data.draw(st.integers(0, 9))] = data.draw(st.sampled_from(pieces))
    path.write_bytes(damaged)
    try:
        Folder.read_config("example", pathlib.Path(folder))
    except (ValueError, FileNotFoundError) as error:
        assert str(error).startswith(str(folder))
