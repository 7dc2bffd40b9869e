"""Schemas against the real label files, `encode` and `decode`, `parse`, and the IoU."""

import json

import descriptions
import jax
import jax.numpy as jnp
import label_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aima_jax.attributes import AttributeSchema, Group, agreement, attribute_iou
from tfds_builders.market1501_attribute import schema as market1501
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.pa100k import schema as pa100k
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.peta import schema as peta
from tfds_builders.peta.schema import SCHEMA as peta_schema
from tfds_builders.peta.schema import SCHEMA_35 as peta35_schema
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema

SCHEMAS = (market1501_schema, peta_schema, peta35_schema, pa100k_schema, synthetic_schema)
each_schema = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
each_real_schema = pytest.mark.parametrize("schema", SCHEMAS[:4], ids=lambda schema: schema.name)


def test_sizes_and_names():
    sizes = {schema.name: schema.size for schema in SCHEMAS[:4]}
    assert sizes == {"market1501": 35, "peta": 105, "peta35": 35, "pa100k": 26}
    for schema in SCHEMAS:
        assert len(set(schema.names)) == len(schema.names) == schema.size
    assert {"gender=female", "upper_color=red", "backpack"} <= set(market1501_schema.names)
    assert {"gender=female", "upper_color=red", "backpack"} <= set(peta_schema.names)
    assert {"gender=female", "lower_type=skirt", "backpack"} <= set(pa100k_schema.names)


def test_market1501_categories(shared_data):
    splits = label_files.market1501(shared_data)
    train, test = (set(map(tuple, splits[split])) for split in ("train", "test"))
    assert (len(train), len(test), len(test - train)) == (508, 484, 315)

    colors = [name.startswith("upper_color=") for name in market1501_schema.names]
    assert [int((splits[s][:, colors].sum(1) == 0).sum()) for s in ("train", "test")] == [78, 69]
    colors = [name.startswith("lower_color=") for name in market1501_schema.names]
    assert [int((splits[s][:, colors].sum(1) == 0).sum()) for s in ("train", "test")] == [30, 44]


def test_market1501_codes():
    set_by_code = [bit for codes in market1501.FIELDS.values() for bit in codes.values() if bit]
    assert sorted(set_by_code) == sorted(market1501_schema.names)
    assert market1501.FIELDS["gender"] == {1: "gender=male", 2: "gender=female"}
    assert market1501.FIELDS["up"] == {1: "sleeve=long", 2: "sleeve=short"}
    assert market1501.FIELDS["hair"] == {1: "hair=short", 2: "hair=long"}
    assert market1501.FIELDS["clothes"] == {1: "lower_type=dress", 2: "lower_type=pants"}
    assert market1501.FIELDS["downpink"] == {1: None, 2: "lower_color=pink"}


def test_peta_is_in_the_order_of_the_file(shared_data):
    names, rows = label_files.peta(shared_data)
    assert list(peta.FILE_NAMES) == names
    assert len(np.unique(rows, axis=0)) == 7769
    assert peta35_schema.names == peta_schema.names[:35]
    for file_name, bit in peta.COLUMNS.items():
        body, _, color = bit.partition("_color=")
        if color:
            part = {"upper": "upperBody", "lower": "lowerBody"}.get(body, body)
            assert file_name == part + color.replace("gray", "grey").capitalize()


def test_pa100k_is_in_the_order_of_the_file(shared_data):
    names, splits = label_files.pa100k(shared_data)
    assert list(pa100k.FILE_NAMES) == names
    found = {split: set(map(bytes, rows)) for split, rows in splits.items()}
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 2020,
        "val": 954,
        "test": 849,
    }
    assert len(found["test"] - found["train"]) == 168


@each_real_schema
def test_decode_takes_every_real_row_and_encode_inverts_it(shared_data, schema):
    for bits in label_files.categories(shared_data, schema):
        description = schema.decode(bits)
        assert description.keys() == {group.name for group in schema.groups}
        np.testing.assert_array_equal(schema.encode(description), bits)


@each_schema
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_encode_and_decode_are_inverse_on_any_description(schema, data):
    description = data.draw(descriptions.whole(schema))
    bits = schema.encode(description)
    assert bits.dtype == np.uint8
    held = {name for name, bit in zip(schema.names, bits, strict=True) if bit}
    expected = set()
    for name, value in description.items():
        if isinstance(value, bool):
            expected |= {name} if value else set()
        else:
            values = [value] if isinstance(value, str) else value
            expected |= {f"{name}={one}" for one in values} & set(schema.names)
    assert held == expected
    assert schema.decode(bits) == description


@each_schema
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_parse_reads_back_what_a_person_would_type(schema, data):
    description = data.draw(descriptions.partial(schema))
    typed = []
    for name, value in description.items():
        if isinstance(value, tuple):
            typed += [f"{name}={one}" for one in value]
        else:
            typed.append({True: name, False: f"{name}=no"}.get(value, f"{name} = {value}"))
    said = {name: value for name, value in description.items() if value != ()}
    assert schema.parse(" , ".join(typed)) == said


@each_schema
def test_a_schema_survives_json(schema):
    data = json.loads(json.dumps(schema.to_dict()))
    assert AttributeSchema.from_dict(data) == schema
    if not data.pop("absences"):  # which files of earlier versions do not have
        assert AttributeSchema.from_dict(data) == schema


def test_values_may_come_in_any_order_and_form():
    bits = peta_schema.encode({"upper_color": ["white", "red"], "hat": np.True_})
    assert peta_schema.decode(bits)["upper_color"] == ("red", "white")
    np.testing.assert_array_equal(
        peta_schema.encode({"upper_color": "red"}), peta_schema.encode({"upper_color": {"red"}})
    )


MARKET = {
    "age": "adult",
    "gender": "male",
    "hair": "short",
    "sleeve": "long",
    "lower_length": "long",
    "lower_type": "pants",
}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"age": "adult"}, "gender is missing; expected one of male, female"),
        ({**MARKET, "gendr": "male"}, "'gendr' is unknown; did you mean 'gender'"),
        ({**MARKET, "gender": "man"}, "'man' is unknown.*male, female"),
        ({**MARKET, "gender": ("male", "female")}, "expected one of male, female"),
        ({**MARKET, "upper_color": "grey"}, "did you mean 'gray'.*none"),
        ({**MARKET, "hat": "yes"}, "hat is 'yes'; expected True or False"),
    ],
)
def test_encode_says_what_it_expects(description, message):
    with pytest.raises(ValueError, match=message):
        market1501_schema.encode(description)


def test_encode_checks_independent_values():
    with pytest.raises(ValueError, match=r"hair: value 'log' is unknown; did you mean 'long'"):
        peta_schema.encode({"hair": ("short", "log")})
    with pytest.raises(ValueError, match="hair is 3; expected any number of long, short, bald"):
        peta_schema.encode({"hair": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gender=female": 1}, "gender is male, female"),
        ({"gender=male": 0}, "gender is missing"),
        ({"upper_color=red": 1, "upper_color=blue": 1}, "upper_color is red, blue"),
        ({"hat": 2}, "neither 0 nor 1"),
    ],
)
def test_decode_says_what_is_wrong(changes, message):
    bits = market1501_schema.encode(MARKET)
    for name, bit in changes.items():
        bits[market1501_schema.names.index(name)] = bit
    with pytest.raises(ValueError, match=message):
        market1501_schema.decode(bits)


def test_decode_wants_the_schemas_size():
    with pytest.raises(ValueError, match=r"expected \(35,\)"):
        market1501_schema.decode(np.zeros(26, np.uint8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gendr=female", "did you mean 'gender'"),
        ("gender", r"gender=male\|female"),
        ("gender=female,gender=male", "gender is given twice"),
        ("backpack=maybe", "'maybe' is unknown"),
        ("upper_color=reed", "did you mean 'red'"),
    ],
)
def test_parse_says_what_it_expects(text, message):
    with pytest.raises(ValueError, match=message):
        market1501_schema.parse(text)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Group("hat", "switch"), "kind is 'switch'"),
        (lambda: Group("hat", "flag", ("yes",)), "a flag has no values"),
        (lambda: Group("hair", "exclusive"), "a flag has no values"),
        (lambda: Group("hair", "independent", ("long",), absent="none"), "only an exclusive group"),
        (lambda: AttributeSchema("s", (Group("hat", "flag"),) * 2), "given twice"),
        (lambda: AttributeSchema("s", (Group("hat", "flag"),), ("cap",)), r"\['cap', 'hat'\]"),
        (
            lambda: AttributeSchema("s", (Group("hat", "flag"),), absences=("no_hat",)),
            r"not among its bits: \['no_hat'\]",
        ),
        (lambda: AttributeSchema.from_dict({"name": "s"}), "not an attribute schema"),
    ],
)
def test_a_schema_must_make_sense(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_what_descriptions_say():
    def said(text):
        bits = market1501_schema.said(market1501_schema.parse(text))
        return {n: int(b) for n, b in zip(market1501_schema.names, bits, strict=True) if b}

    assert said("") == {}
    assert said("hat=no,backpack") == {"hat": -1, "backpack": 1}
    assert said("hat!=yes,backpack!=no") == {"hat": -1, "backpack": 1}
    assert said("upper_color=red") == {"upper_color=red": 1}
    assert said("upper_color!=red, upper_color != blue") == {
        "upper_color=red": -1,
        "upper_color=blue": -1,
    }
    colors = [name for name in market1501_schema.names if name.startswith("upper_color=")]
    assert said("upper_color=none") == dict.fromkeys(colors, -1)
    two = peta_schema.said({"upper_color": ("red", "!blue")})
    assert two[peta_schema.names.index("upper_color=red")] == 1
    assert two[peta_schema.names.index("upper_color=blue")] == -1
    assert np.count_nonzero(two) == 2
    # Of a group of one value, what is not the absence is the value.
    woman = pa100k_schema.parse("gender!=male")
    assert woman == {"gender": "female"}
    assert pa100k_schema.said({"gender": "male"})[0] == -1


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"upper_color": "!none"}, "said not to be none; expected one of black"),
        ({"upper_color": ("red", "blue")}, "expected one of black"),
        ({"upper_color": ("red", "!blue")}, "some that do not hold, such as !black"),
        ({"upper_color": "!reed"}, "did you mean 'red'"),
        ({"upper_color": ()}, "expected one of black"),
    ],
)
def test_what_cannot_be_said(description, message):
    with pytest.raises(ValueError, match=message):
        market1501_schema.said(description)


def test_a_value_and_its_negation_contradict():
    with pytest.raises(ValueError, match="hair is said to be long, and not to be long"):
        peta_schema.said({"hair": ("long", "!long")})


@each_schema
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_agreement_is_that_nothing_said_is_otherwise(schema, data):
    images = np.stack([schema.encode(data.draw(descriptions.whole(schema))) for _ in range(3)])
    said = [schema.said(data.draw(descriptions.partial(schema))) for _ in range(2)]
    said.append(schema.said(images[0]))
    found = agreement(images, np.stack(said))
    for i, bits in enumerate(images):
        for j, statement in enumerate(said):
            expected = True
            for bit, one in zip(bits.tolist(), statement.tolist(), strict=True):
                if (one == 1 and bit == 0) or (one == -1 and bit == 1):
                    expected = False
            assert found[i, j] == expected
    # A whole description agrees with its own category alone.
    np.testing.assert_array_equal(found[:, 2], (images == images[0]).all(1))
    np.testing.assert_array_equal(found, jax.jit(agreement)(images, np.stack(said)))


@each_schema
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_who_says_more_agrees_with_fewer(schema, data):
    images = np.stack([schema.encode(data.draw(descriptions.whole(schema))) for _ in range(4)])
    more = data.draw(descriptions.partial(schema))
    kept = data.draw(st.sets(st.sampled_from(sorted(more)))) if more else set()
    less = {name: value for name, value in more.items() if name in kept}
    said = np.stack([schema.said(more), schema.said(less)])
    specific, vague = agreement(images, said).T
    assert (specific <= vague).all()


bit_matrices = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 1), min_size=size, max_size=size), min_size=2, max_size=7
    )
)


@settings(max_examples=50, deadline=None)
@given(bit_matrices)
def test_iou_equals_that_of_sets(rows):
    a, b = np.array(rows[:-1], np.uint8), np.array(rows[1:], np.uint8)
    expected = np.empty((len(a), len(b)))
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            s, t = set(np.flatnonzero(left)), set(np.flatnonzero(right))
            expected[i, j] = len(s & t) / len(s | t) if s | t else 1.0
    np.testing.assert_array_equal(attribute_iou(a, b), expected)


def test_iou_of_jax_arrays_stays_in_jax():
    a = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1]], np.uint8)
    result = jax.jit(attribute_iou)(jnp.asarray(a), jnp.asarray(a))
    assert isinstance(result, jax.Array)
    np.testing.assert_allclose(result, attribute_iou(a, a), rtol=1e-6)
    assert isinstance(attribute_iou(a, a), np.ndarray)
