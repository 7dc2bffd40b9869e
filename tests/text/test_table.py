"""The text table of a dataset: its sentences in variants, as tokens."""

import numpy as np
import pytest
from prompts import categories, each_schema, prompts

from aima_jax.text import (
    Variation,
    build_text_table,
    tokenize,
)
from tfds_builders.pa100k.schema import SCHEMA as pa100k_schema
from tfds_builders.peta.schema import SCHEMA as peta_schema

VARIED = Variation(partial=0.6, absences=0.4, templates=0.5, synonyms=0.5, order=0.5)


@each_schema
def test_variants_say_what_they_say(request, schema):
    rows = categories(request, schema)[::40][:40]
    template = prompts(schema)
    table = build_text_table(rows, template, variants=6, variation=VARIED, seed=1)
    alone = build_text_table(rows, template)
    assert table.sentences == alone.sentences
    width = min(table.tokens.shape[-1], alone.tokens.shape[-1])
    np.testing.assert_array_equal(table.tokens[:, 0, :width], alone.tokens[:, 0, :width])
    assert table.whole[:, 0].all() and not table.whole.all() and table.whole[:, 1:].any()
    for row, bits in enumerate(rows):
        for said, whole, ids in zip(
            table.said[row], table.whole[row], table.phrase_ids[row], strict=True
        ):
            # Nothing is said that the category does not have, and a partial sentence says some.
            assert (bits[said == 1] == 1).all() and (bits[said == -1] == 0).all()
            assert (said != 0).all() == whole
            assert not said.any() or ids.max() >= 0 or not bits.any()
    again = build_text_table(rows, template, variants=6, variation=VARIED, seed=1)
    other = build_text_table(rows, template, variants=6, variation=VARIED, seed=2)
    np.testing.assert_array_equal(table.tokens, again.tokens)
    assert not np.array_equal(table.said, other.said)


def test_table_is_what_the_step_gathers():
    attributes = np.stack([pa100k_schema.encode(pa100k_schema.parse(typed)) for typed in TYPED])
    table = build_text_table(attributes, prompts(pa100k_schema))
    assert table.tokens.dtype == table.phrase_ids.dtype == np.int32
    assert table.tokens.shape == table.phrase_ids.shape == (2, 1, 32)
    assert table.whole.all()
    np.testing.assert_array_equal(table.said[:, 0], 2 * attributes.astype(int) - 1)
    np.testing.assert_array_equal(table.attributes, attributes)
    np.testing.assert_array_equal(table.tokens[:, 0], tokenize(table.sentences, 32))


TYPED = (
    "gender=female,age=18-60,view=front,sleeve=short,lower_type=shorts,hat,backpack,boots",
    "age=over_60,view=back,sleeve=long,lower_type=trousers",
)


def test_a_sentence_over_77_tokens_is_refused():
    bits = np.ones((1, 105), np.uint8)
    bits[0, peta_schema.names.index("gender=male")] = 0
    with pytest.raises(ValueError, match=r"text 0 has \d+ tokens .* at most 77: 'A bald"):
        build_text_table(bits, prompts(peta_schema))


def test_table_wants_rows_of_bits():
    with pytest.raises(ValueError, match="expected one row of 26 bits for each category"):
        build_text_table(np.zeros((0, 26), np.uint8), prompts(pa100k_schema))
    with pytest.raises(ValueError, match=r"expected \(26,\)"):
        build_text_table(np.zeros((1, 35), np.uint8), prompts(pa100k_schema))
