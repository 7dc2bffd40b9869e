"""Protocols of partial descriptions and absences, and recognition, by plain loops."""

import itertools

import naive_retrieval
import numpy as np
import pytest

from aima_jax.attributes import AttributeSchema, Group
from aima_jax.evaluation import similarity
from aima_jax.evaluation.partial import (
    GROUPS_SAID,
    PartialQueries,
    area_under_curve,
    draw_descriptions,
)
from aima_jax.evaluation.posterior import Bank, complete
from aima_jax.text import PromptTemplate, Wording

SCHEMA = AttributeSchema(
    "people",
    (
        Group("gender", "exclusive", ("male", "female")),
        Group("top", "exclusive", ("red", "blue"), absent="none"),
        Group("with", "independent", ("bag", "dog")),
        Group("hat", "flag"),
        Group("boots", "flag"),
        Group("wings", "flag"),  # nobody has them
    ),
)
IMAGES = 90
DIM = 8


class Words(PromptTemplate):
    """A template that says what it is told, and sentences of which each has its own feature."""

    schema = SCHEMA

    def __init__(self):
        pass

    def render(self, description):
        text = repr(description) if isinstance(description, dict) else str(description.tolist())
        return type("Sentence", (), {"text": text, "said": SCHEMA.said(description)})


def encode(texts):
    assert len(set(texts)) == len(texts)
    seeds = ([ord(letter) for letter in text] for text in texts)
    return unit(np.stack([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds]))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery():
    """Features that tell a little of the attributes, some of them equal, and the attributes."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "gender": str(rng.choice(["male", "female"])),
            "top": str(rng.choice(["red", "blue", "none"], p=[0.6, 0.1, 0.3])),
            "with": tuple(np.array(["bag", "dog"])[rng.random(2) < 0.3].tolist()),
            "hat": bool(rng.random() < 0.3),
            "boots": bool(rng.random() < 0.5),
            "wings": False,
        }
        for _ in range(IMAGES)
    ]
    attributes = np.stack([SCHEMA.encode(row) for row in rows])
    signal = attributes @ rng.standard_normal((SCHEMA.size, DIM))
    features = unit(signal + 0.7 * rng.standard_normal((IMAGES, DIM)))
    features[5:10] = features[4]
    return features, attributes


@pytest.fixture(scope="module")
def bank(gallery):
    """Half of the categories there are, so that some descriptions agree with none."""
    features, attributes = gallery
    table, category = np.unique(attributes, axis=0, return_inverse=True)
    means = [features[category.ravel() == number].mean(0) for number in range(len(table))]
    return Bank(unit(np.stack(means))[::2], table[::2], 0.1)


@pytest.fixture(scope="module")
def queries(gallery, bank):
    return PartialQueries(Words(), encode, bank, *gallery)


def scores_of(gallery, bank, description):
    """A description's scores by both scorings; the posterior is held to loops of its own."""
    said = SCHEMA.said(description)[None]
    completions = complete(bank, Words(), said, encode)
    cosine = gallery[0] @ encode([Words().render(description).text])[0]
    return {
        "posterior": bank.log_probabilities(bank.agreeing(said), gallery[0], completions)[0],
        "cosine": cosine,
    }


def relevant_to(gallery, description):
    """Whether each image has all that is said, read off its own description."""
    hits = []
    for bits in gallery[1]:
        image = SCHEMA.decode(bits)
        hits.append(
            all(
                set(value) <= set(image[name]) if name == "with" else image[name] == value
                for name, value in description.items()
            )
        )
    return hits


def naive(scores, hits):
    ranked = naive_retrieval.ranked_hits(scores.tolist(), hits)
    values = naive_retrieval.query_metrics(ranked)
    return values | {f"P{k}": sum(ranked[:k]) / k for k in (10, 20)}


def test_descriptions_are_drawn_from_images_that_have_as_many_groups(gallery):
    _, attributes = gallery
    for groups in (1, 2, 3, 5, None):
        descriptions = draw_descriptions(SCHEMA, attributes, groups)
        assert len(descriptions) == 500
        assert descriptions == draw_descriptions(SCHEMA, attributes, groups)
        for description in descriptions:
            assert groups in (None, len(description))
            assert not {False, (), "none"} & set(description.values())
        images = [SCHEMA.decode(bits) for bits in attributes]
        said = {tuple(sorted(description.items())) for description in descriptions}
        found = {one for one in said if any(set(one) <= set(image.items()) for image in images)}
        assert found == said  # a group is said as the image has it, "with" in full
        assert len(said) > {1: 5, 2: 20, 3: 20, 5: 2, None: 20}[groups]
    assert draw_descriptions(SCHEMA, attributes, 6) == []  # nobody has wings as well
    first, second = (draw_descriptions(SCHEMA, attributes, k) for k in (1, 2))
    assert [list(d) for d in first] != [list(d)[:1] for d in second]


def test_all_that_holds_of_an_image_is_said(gallery):
    _, attributes = gallery
    whole = {
        tuple((n, v) for n, v in SCHEMA.decode(bits).items() if v not in (False, (), "none"))
        for bits in attributes
    }
    drawn = {tuple(sorted(d.items())) for d in draw_descriptions(SCHEMA, attributes, None)}
    assert drawn <= {tuple(sorted(each)) for each in whole}
    assert len(drawn) > 0.9 * len(whole)


@pytest.mark.parametrize("at_once", [500, 7])
def test_partial_is_that_of_plain_loops(gallery, bank, queries, at_once, monkeypatch):
    monkeypatch.setattr(similarity, "_GROUP_BYTES", at_once * 4 * IMAGES)
    results = queries.partial()
    assert list(results) == ["posterior", "cosine"]
    for name, groups in GROUPS_SAID.items() if at_once == 500 else [("3", 3)]:
        drawn = draw_descriptions(SCHEMA, gallery[1], groups)[:: 1 if groups == 3 else 25]
        rows = {"posterior": [], "cosine": []}
        hits = [relevant_to(gallery, description) for description in drawn]
        for description, relevant in zip(drawn, hits, strict=True):
            for scoring, scores in scores_of(gallery, bank, description).items():
                rows[scoring].append(naive(scores, relevant))
        for scoring, values in rows.items():
            found = results[scoring][name]
            assert list(found) == ["R1", "P10", "mAP", "queries", "random"]
            assert found["queries"] == 500
            if groups == 3:
                for metric in ("R1", "P10", "mAP"):
                    mean = np.mean([value[metric] for value in values])
                    assert found[metric] == pytest.approx(mean, rel=1e-9)
                share = np.mean(hits)
                assert found["random"]["R1"] == pytest.approx(share)
                assert found["random"]["P10"] == pytest.approx(share)
                assert share < found["random"]["mAP"] < share + 0.1
    assert results["posterior"]["1"]["mAP"] > results["posterior"]["1"]["random"]["mAP"]


def test_bits_are_those_that_enough_images_have_and_have_not(gallery, bank, queries):
    results = queries.partial()
    held = dict(zip(SCHEMA.names, gallery[1].sum(0), strict=True))
    common = [bit for bit in SCHEMA.names if 20 <= held[bit] <= IMAGES - 20]
    assert len(common) >= 5
    assert "wings" not in common and "top=blue" not in common
    for scoring in ("posterior", "cosine"):
        assert list(results[scoring]["bits"]) == common
        for bit, found in results[scoring]["bits"].items():
            name, _, value = bit.partition("=")
            description = {name: (value,) if name == "with" else value or True}
            hits = gallery[1][:, SCHEMA.names.index(bit)].astype(bool).tolist()
            scores = scores_of(gallery, bank, description)[scoring]
            assert found["P20"] == pytest.approx(naive(scores, hits)["P20"])
            assert found["base"] == pytest.approx(held[bit] / IMAGES)


def test_absence_is_that_of_plain_loops(gallery, bank, queries):
    results = queries.absence()
    assert list(results) == ["top", "hat", "boots"]  # of each some have one, some have none
    for name, found in results.items():
        absent = "none" if name == "top" else False
        without = [SCHEMA.decode(bits)[name] == absent for bits in gallery[1]]
        scores = scores_of(gallery, bank, {name: absent})["posterior"]
        assert found["P10"] == pytest.approx(naive(scores, without)["P10"])
        assert found["base"] == pytest.approx(np.mean(without))
        assert found["AUC"] == pytest.approx(naive_area(scores, without))
        assert found["AUC"] > 0.6  # the features tell something


def naive_area(scores, positive):
    pairs = itertools.product(
        [s for s, p in zip(scores, positive, strict=True) if p],
        [s for s, p in zip(scores, positive, strict=True) if not p],
    )
    return np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])


def test_the_area_under_the_curve_counts_ties_by_half():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, positive = rng.integers(0, 6, 30) / 4, rng.random(30) < 0.4
        assert area_under_curve(scores, positive) == pytest.approx(naive_area(scores, positive))
    assert np.isnan(area_under_curve(np.ones(3), np.ones(3, bool)))


def test_recognition_is_that_of_plain_loops(gallery, bank, queries):
    results = queries.recognition()
    probabilities = bank.attribute_probabilities(gallery[0])
    rated = [bit for bit in SCHEMA.names if bit != "wings"]
    assert list(results["bits"]) == rated
    for bit, found in results["bits"].items():
        place = SCHEMA.names.index(bit)
        rows = list(zip(probabilities[:, place], gallery[1][:, place] == 1, strict=True))
        right = [(p >= 0.5) == held for p, held in rows]
        of_held = [ok for ok, (_, held) in zip(right, rows, strict=True) if held]
        of_others = [ok for ok, (_, held) in zip(right, rows, strict=True) if not held]
        assert found["mA"] == pytest.approx((np.mean(of_held) + np.mean(of_others)) / 2)
        true = sum(p >= 0.5 and held for p, held in rows)
        wrong = sum((p >= 0.5) != held for p, held in rows)
        assert found["F1"] == pytest.approx(2 * true / (2 * true + wrong) if true else 0)
        assert found["AUC"] == pytest.approx(naive_area(*map(list, zip(*rows, strict=True))))
        assert found["base"] == pytest.approx(np.mean([held for _, held in rows]))
    for name in ("mA", "F1", "AUC"):
        mean = np.mean([bit[name] for bit in results["bits"].values()])
        assert results[name] == pytest.approx(mean)


def test_a_real_template_says_the_descriptions(gallery, bank):
    from tfds_builders.synthetic_pedestrians.schema import SCHEMA as schema
    from tfds_builders.synthetic_pedestrians.wording import WORDING

    rng = np.random.default_rng(0)
    row = {
        group.name: group.values[0] if group.values else bool(rng.random() < 0.5)
        for group in schema.groups
    }
    attributes = np.stack([schema.encode(row | {"hat": bool(hat)}) for hat in range(2)] * 25)
    said = []

    def remember(texts):
        said.extend(texts)
        return encode(texts)

    assert isinstance(WORDING, Wording)
    template = PromptTemplate(schema, "sentence", WORDING)
    known = Bank(unit(rng.standard_normal((2, DIM))), attributes[:2], 0.05)
    images = unit(rng.standard_normal((50, DIM)))
    asked = PartialQueries(template, remember, known, images, attributes)
    absent = asked.absence()
    assert list(absent) == ["hat"]
    assert said == [template.render({"hat": False}).text]
    assert "no hat" in said[0]
    assert list(asked.partial()["cosine"]["bits"]) == ["hat"]
