"""What other people wrote is taken or refused with a message, never with a traceback."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aima_jax.attributes import AttributeSchema
from tfds_builders.market1501_attribute.builder import read_labels as read_market
from tfds_builders.market1501_attribute.schema import SCHEMA as market1501_schema
from tfds_builders.pa100k.builder import read_labels as read_pa100k
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.peta.builder import read_labels as read_peta
from tfds_builders.peta.schema import SCHEMA as peta_schema
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema

SCHEMAS = [market1501_schema, peta_schema, pa100k_schema, synthetic_schema]
WORDS = sorted({word for schema in SCHEMAS for group in schema.groups for word in group.answers})
GROUPS = sorted({group.name for schema in SCHEMAS for group in schema.groups})

one = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
value = st.recursive(
    st.sampled_from(WORDS) | one,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
name = st.sampled_from(GROUPS) | one


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SCHEMAS), st.dictionaries(name, value, max_size=6))
def test_descriptions(schema, description):
    try:
        bits = schema.encode(description)
    except ValueError as error:
        assert str(error)
    else:
        assert set(schema.validate(description).items()) <= set(schema.decode(bits).items())


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SCHEMAS),
    st.lists(st.sampled_from([*GROUPS, *WORDS, "=", ",", "=yes"]) | st.text(), max_size=9),
)
def test_typed_descriptions(schema, parts):
    try:
        schema.parse("".join(parts))
    except ValueError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(value)
def test_schemas(data):
    for content in (data, {"name": data, "groups": [data], "names": data}):
        with pytest.raises(ValueError, match=r"schema|group"):
            AttributeSchema.from_dict(content)


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([read_market, read_pa100k, read_peta]),
    st.sampled_from([b"", HEADER]),
    st.lists(
        st.binary(max_size=20)
        | st.tuples(st.integers(0, 20), st.integers(0, 2**32 - 1)).map(
            lambda words: np.array(words, "<u4").tobytes()
        ),
        max_size=6,
    ),
)
def test_label_files_of_random_bytes(tmp_path_factory, read, header, parts):
    path = tmp_path_factory.getbasetemp() / "random.mat"
    path.write_bytes(header + b"".join(parts))
    with pytest.raises(ValueError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
