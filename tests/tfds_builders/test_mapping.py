"""What the schemas' bits mean in UPAR's vocabulary: by table, on every real row, on real lines."""

import label_files
import numpy as np
import pytest

from aima_jax.evaluation.cross import shared_description, translate
from aima_jax.text import PromptTemplate
from tfds_builders import market1501_attribute, pa100k, peta, synthetic_pedestrians, upar
from tfds_builders.market1501_attribute.builder import read_labels as read_market
from tfds_builders.peta.builder import read_labels as read_peta
from tfds_builders.upar.mapping import MEANINGS, SCHEMAS, VOCABULARY, unknown, without_counterpart

PACKAGES = {
    "upar": upar,
    "market1501": market1501_attribute,
    "pa100k": pa100k,
    "peta": peta,
    "peta35": peta,
    "synthetic": synthetic_pedestrians,
}
COLORS = {f"{part}_color={color}" for part in ("upper", "lower") for color in upar.schema.COLORS}
# What UPAR asks and a dataset does not tell.
UNKNOWN = {
    "upar": set(),
    "market1501": {"hair=bald", "glasses", "sunglasses", "lower_color=red"}
    | {f"upper_color={color}" for color in ("brown", "orange", "pink", "other")}
    | {f"lower_color={color}" for color in ("orange", "other")},
    "pa100k": {"hair=short", "hair=long", "hair=bald", "glasses", "sunglasses"} | COLORS,
    "peta": {"upper_color=other", "lower_color=other", "glasses"},
    "peta35": {"age=young", "hair=short", "hair=long", "hair=bald", "sleeve=short", "glasses"}
    | COLORS,
    "synthetic": {"hair=bald", "sunglasses"}
    | {f"upper_color={color}" for color in ("brown", "orange", "other")}
    | {f"lower_color={color}" for color in ("orange", "pink", "purple", "yellow", "other")},
}
# UPAR's lines of DATASETS.md, by the bits that hold.
LINES = {
    ("market1501", "0015"): {
        "age=old",
        "sleeve=short",
        "upper_color=red",
        "lower_color=gray",
        "lower_type=trousers_or_shorts",
    },
    ("peta", 18984): {
        "age=old",
        "gender=female",
        "hair=long",
        "sleeve=short",
        "upper_color=blue",
        "lower_color=black",
        "lower_type=trousers_or_shorts",
        "bag",
    },
    ("peta", 18987): {
        "age=adult",
        "hair=short",
        "sleeve=short",
        "upper_color=black",
        "lower_length=short",
        "lower_color=white",
        "lower_type=trousers_or_shorts",
        "hat",
    },
}
OTHERWISE = {("market1501", "0015"): {"hair=short"}, ("peta", 18984): {"sunglasses"}}


@pytest.mark.parametrize("name", MEANINGS)
def test_a_table_knows_its_bits_and_lists_what_is_unknown(name):
    assert set(unknown(name)) == UNKNOWN[name]
    own = set(SCHEMAS[name].names)
    told = {bit for yes, no in MEANINGS[name].values() for bit in (*(yes or ()), *(no or ()))}
    assert told <= own
    assert set(without_counterpart(name)) == own - told
    assert set(MEANINGS[name]) == set(VOCABULARY) - UNKNOWN[name]
    if name == "pa100k":
        assert {"boots", "lower_type=long_coat", "glasses", "view=front"} <= own - told
    package = PACKAGES[name]
    assert SCHEMAS[name] == (package.SCHEMA_35 if name == "peta35" else package.SCHEMA)


@pytest.mark.parametrize("name", ["market1501", "pa100k", "peta", "peta35"])
def test_every_real_row_maps_without_contradiction(shared_data, name):
    schema, shared = SCHEMAS[name], list(MEANINGS[name])
    rows = label_files.categories(shared_data, schema)
    said = translate(rows, schema, MEANINGS[name], shared)
    assert set(np.unique(said)) <= {-1, 0, 1}
    for group in ("age", "hair"):  # nobody is two of them
        columns = [place for place, bit in enumerate(shared) if bit.startswith(f"{group}=")]
        assert ((said[:, columns] == 1).sum(1) <= 1).all()
    for bit in shared:  # each is said to hold of somebody, and not to hold of somebody
        assert {-1, 1} <= set(said[:, shared.index(bit)].tolist()), bit
    # Back in the schema's own words, nothing is said that a row does not have.
    template = PromptTemplate(schema, "sentence", PACKAGES[name].WORDING)
    for row, statements in zip(rows[::7], said[::7], strict=True):
        description = shared_description(statements, template, MEANINGS[name], shared)
        own = schema.said(description)
        assert not ((own == 1) & (row == 0)).any() and not ((own == -1) & (row == 1)).any()
        template.render(description)


def test_the_usual_35_of_peta_say_nothing_that_all_105_deny(shared_data):
    rows = label_files.peta(shared_data)[1]
    shared = list(MEANINGS["peta35"])
    few = translate(rows[:, :35], SCHEMAS["peta35"], MEANINGS["peta35"], shared)
    many = translate(rows, SCHEMAS["peta"], MEANINGS["peta"], shared)
    assert not (few * many == -1).any()
    gender = shared.index("gender=female")
    assert (few[:, gender] != many[:, gender]).sum() == 1  # the image without any
    template = PromptTemplate(SCHEMAS["peta35"], "sentence", peta.WORDING)
    for value, said in ((1, "female"), (-1, "male")):
        told = shared_description(
            np.array([value]), template, MEANINGS["peta35"], ["gender=female"]
        )
        assert told == {"gender": said}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_real_lines_of_upar_but_for_two_known_bits(shared_data, line):
    name, which = line
    folder = shared_data / "annotations"
    if name == "market1501":
        row = read_market(folder / "market1501" / "market_attribute.mat")["test"][which]
    else:
        row = read_peta(folder / "peta" / "PETA.mat").attributes[which - 1]
    shared = list(MEANINGS[name])
    said = translate(row[None], SCHEMAS[name], MEANINGS[name], shared)[0]
    differ = {
        bit
        for bit, value in zip(shared, said, strict=True)
        if value and (value == 1) != (bit in LINES[line])
    }
    assert differ == OTHERWISE.get(line, set())


def test_a_statement_with_several_reasons_is_told_by_what_rules_out_the_rest():
    schema, meanings = SCHEMAS["pa100k"], MEANINGS["pa100k"]
    template = PromptTemplate(schema, "sentence", pa100k.WORDING)
    shared = ["lower_length=short", "lower_type=trousers_or_shorts", "gender=female", "bag"]

    def told(*said):
        return shared_description(np.array(said, np.int8), template, meanings, shared)

    assert told(1, 1, -1, 0) == {"lower_type": ("shorts",), "gender": "male"}
    assert told(-1, 1, 1, -1) == {"lower_type": ("trousers",), "gender": "female"}
    assert told(0, 1, 0, 1) == {}  # trousers or shorts, a handbag or a shoulder bag
    assert told(1, 0, 0, 0) == {"lower_type": ("shorts",)}
