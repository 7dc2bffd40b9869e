"""The posterior of a description: its formula in plain float64 loops, and what a probability is."""

import dataclasses
import math

import numpy as np
import pytest
from samples import make_model, save

from aima_jax.attributes import AttributeSchema, Group
from aima_jax.checkpoint import load_model
from aima_jax.evaluation import posterior
from aima_jax.evaluation.posterior import Bank, complete, load_bank
from aima_jax.text import PromptTemplate

BITS = 6


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_bank(temperature=0.05, seed=0, categories=9, dim=7):
    rng = np.random.default_rng(seed)
    attributes = np.unique(rng.integers(0, 2, (40, BITS), dtype=np.uint8), axis=0)
    attributes = attributes[rng.permutation(len(attributes))[:categories]]
    return Bank(unit(rng.standard_normal((categories, dim))), attributes, temperature)


def make_images(bank, count=23, seed=1):
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((count, bank.features.shape[1])))


def make_said(bank, seed=2):
    """Partial descriptions, whole ones in the bank and outside it, and one that says nothing."""
    rng = np.random.default_rng(seed)
    whole = 2 * bank.attributes.astype(np.int8) - 1
    others = rng.integers(0, 2, (20, BITS)).astype(np.int8) * 2 - 1
    outside = others[~(others[:, None] == whole).all(2).any(1)][:4]
    assert len(outside) == 4
    partial = rng.integers(-1, 2, (30, BITS)).astype(np.int8)
    return np.concatenate([partial, whole, outside, np.zeros((1, BITS), np.int8)])


def make_completions(bank, said, seed=3):
    """One to three sentences for each description with which no category agrees."""
    rng = np.random.default_rng(seed)
    alone = [row for row, d in enumerate(said) if not any(agrees(b, d) for b in bank.attributes)]
    return {row: unit(rng.standard_normal((1 + row % 3, len(bank.features[0])))) for row in alone}


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def agrees(bits, description):
    return all(
        not (claim == 1 and bit == 0) and not (claim == -1 and bit == 1)
        for bit, claim in zip(bits, description, strict=True)
    )


def naive_log_probability(bank, description, completions, image):
    def exponent(feature):
        products = (float(a) * float(b) for a, b in zip(image, feature, strict=True))
        return sum(products) / bank.temperature

    every = [exponent(feature) for feature in bank.features]
    pairs = zip(every, bank.attributes, strict=True)
    chosen = [value for value, bits in pairs if agrees(bits, description)]
    if not chosen:  # its completions join the bank
        chosen = [exponent(sentence) for sentence in completions]
        every = every + chosen
    return log_sum_exp(chosen) - log_sum_exp(every)


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
def test_probabilities_are_those_of_plain_loops_in_any_blocks(temperature, monkeypatch):
    bank = make_bank(temperature)
    images, said = make_images(bank), make_said(bank)
    completions = make_completions(bank, said)
    assert len(completions) > 10
    expected = [
        [naive_log_probability(bank, d, completions.get(row), image) for image in images]
        for row, d in enumerate(said)
    ]
    found = bank.log_probabilities(bank.agreeing(said), images, completions)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)
    assert (found <= 0).all()
    monkeypatch.setattr(posterior, "_BLOCK_ELEMENTS", 5 * 3 * len(said))
    again = bank.log_probabilities(bank.agreeing(said), images, completions)
    np.testing.assert_allclose(again, found, rtol=1e-12)


def test_the_normaliser_and_the_bits_are_those_of_plain_loops(monkeypatch):
    bank = make_bank()
    images = make_images(bank)
    exponents = images.astype(float) @ bank.features.astype(float).T / bank.temperature
    norms = [log_sum_exp(row) for row in exponents.tolist()]
    for elements in (2**22, 30):
        monkeypatch.setattr(posterior, "_BLOCK_ELEMENTS", elements)
        np.testing.assert_allclose(bank.normaliser(images), norms, rtol=1e-12)
        shares = np.exp(exponents - np.array(norms)[:, None])
        expected = [
            [share[bank.attributes[:, bit] == 1].sum() for bit in range(BITS)] for share in shares
        ]
        np.testing.assert_allclose(bank.attribute_probabilities(images), expected, atol=1e-12)
    assert bank.normaliser(images[:0]).shape == (0,)
    assert bank.attribute_probabilities(images[:0]).shape == (0, BITS)


def test_a_bit_holds_or_it_does_not():
    bank = make_bank()
    images = make_images(bank)
    said = np.concatenate([np.eye(BITS), -np.eye(BITS)]).astype(np.int8)
    probabilities = np.exp(
        bank.log_probabilities(bank.agreeing(said), images, make_completions(bank, said))
    )
    np.testing.assert_allclose(probabilities[:BITS] + probabilities[BITS:], 1, rtol=1e-12)
    np.testing.assert_allclose(probabilities[:BITS].T, bank.attribute_probabilities(images))
    nothing = np.zeros((1, BITS), np.int8)
    certain = bank.log_probabilities(bank.agreeing(nothing), images, {})
    np.testing.assert_array_equal(certain, 0)


def test_saying_more_is_never_more_probable():
    bank = make_bank()
    images, rng = make_images(bank), np.random.default_rng(5)
    for bits in 2 * bank.attributes.astype(np.int8) - 1:
        order = rng.permutation(BITS)
        said = np.zeros((BITS + 1, BITS), np.int8)
        for count in range(1, BITS + 1):
            said[count, order[:count]] = bits[order[:count]]
        scores = bank.log_probabilities(bank.agreeing(said), images, make_completions(bank, said))
        assert (np.diff(scores, axis=0) <= 1e-12).all()


def test_whole_descriptions_rank_by_their_own_sentence_less_the_normaliser():
    bank = make_bank()
    images, said = make_images(bank), make_said(bank)[30:-1]
    outside = unit(np.random.default_rng(4).standard_normal((4, 7)))
    sentences = np.concatenate([bank.features, outside])
    completions = {9 + row: sentence[None] for row, sentence in enumerate(outside)}
    scores = bank.whole(sentences @ images.T, bank.normaliser(images))
    exact = bank.log_probabilities(bank.agreeing(said), images, completions)
    for fast, slow in zip(scores, exact, strict=True):
        np.testing.assert_array_equal(np.argsort(fast), np.argsort(slow))
    np.testing.assert_allclose(scores[:9], exact[:9], atol=1e-4)  # categories of the bank


def test_what_is_all_but_certain_keeps_its_order():
    """Two images whose other categories have shares of 1e-20 and 1e-26."""
    bank = Bank(np.eye(2, dtype=np.float32), np.array([[1], [0]], np.uint8), 0.02)
    angles = np.array([0.03, 0.0, 0.1])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    said = np.array([[1], [-1]], np.int8)
    certain, impossible = bank.log_probabilities(bank.agreeing(said), images, {})
    assert np.argsort(-certain).tolist() == [1, 0, 2]
    assert np.argsort(-impossible).tolist() == [2, 0, 1]
    assert (certain < 0).all() and (certain > -1e-15).all()


def test_a_sentence_joins_the_bank_whatever_agrees():
    bank = make_bank()
    images, sentence = make_images(bank), unit(np.random.default_rng(6).standard_normal((1, 7)))
    nothing, anything = (np.full((9, 1), value) for value in (False, True))
    found = bank.log_probabilities(anything, images, {0: sentence})
    expected = [naive_log_probability(bank, [1, -1] * 3, sentence, image) for image in images]
    assert not any(agrees(bits, [1, -1] * 3) for bits in bank.attributes)
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)
    np.testing.assert_array_equal(bank.log_probabilities(nothing, images, {0: sentence}), found)
    with pytest.raises(ValueError, match=r"no category agrees with the descriptions \[0\]"):
        bank.log_probabilities(nothing, images)


@pytest.mark.parametrize("count", [1, 4, 9, 20])
def test_the_nearest_categories_are_those_of_highest_probability(count, monkeypatch):
    monkeypatch.setattr(posterior, "_BLOCK_ELEMENTS", 40)
    bank = make_bank()
    images = make_images(bank)
    exponents = images.astype(float) @ bank.features.astype(float).T / bank.temperature
    shares = np.exp(exponents - [[log_sum_exp(row)] for row in exponents.tolist()])
    categories, probabilities = bank.nearest(images, count)
    for row, chosen, found in zip(shares, categories, probabilities, strict=True):
        assert sorted(chosen) == sorted(np.argsort(-row)[:count])
        np.testing.assert_allclose(found, row[chosen], rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_bank_is_refused():
    bank = make_bank()
    with pytest.raises(ValueError, match="9 and 8"):
        Bank(bank.features, bank.attributes[1:], 0.05)
    with pytest.raises(ValueError, match="at least one category"):
        Bank(bank.features[:0], bank.attributes[:0], 0.05)
    for temperature in (0.0, -1.0, 0.001, float("nan")):
        with pytest.raises(ValueError, match=r"0\.005 or more"):
            Bank(bank.features, bank.attributes, temperature)


SCHEMA = AttributeSchema(
    "six",
    (
        Group("hair", "exclusive", ("short", "long")),
        Group("hat", "flag"),
        Group("bag", "exclusive", ("small", "big"), absent="none"),
        Group("boots", "flag"),
    ),
)


class Words(PromptTemplate):
    """A template that says nothing but the bits."""

    schema = SCHEMA

    def __init__(self):
        pass

    def render(self, bits):
        return type("Sentence", (), {"text": "".join(map(str, bits))})


def completed(bank, descriptions):
    """The completions of each description as bits, through the features of their sentences."""
    said = np.stack([SCHEMA.said(description) for description in descriptions])

    def encode(texts):
        assert len(set(texts)) == len(texts)
        return np.array([[float(bit) for bit in text] for text in texts])

    found = complete(bank, Words(), said, encode)
    return {row: features.astype(int).tolist() for row, features in found.items()}


def test_what_nothing_agrees_with_is_completed_from_what_is_nearest():
    categories = [
        [1, 0, 0, 1, 0, 0],  # short hair, small bag
        [0, 1, 0, 1, 0, 1],  # long hair, small bag, boots
        [0, 1, 1, 0, 1, 0],  # long hair, hat, big bag
    ]
    bank = Bank(np.eye(3), np.array(categories, np.uint8), 0.05)
    long_hat_boots = {"hair": "long", "hat": True, "boots": True}
    descriptions = [
        {"hair": "long"},
        long_hat_boots,
        {"bag": "none"},
        {**long_hat_boots, "bag": "none"},
        SCHEMA.decode(np.array([1, 0, 1, 0, 1, 1])),
        {"hair": "!short", "hat": True, "bag": "!big"},
    ]
    found = completed(bank, descriptions)
    assert found[1] == [[0, 1, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]]  # twice alike: once
    assert found[2] == [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0]]
    assert found[3] == [[0, 1, 1, 0, 0, 1]]
    assert found[4] == [[1, 0, 1, 0, 1, 1]]
    # Short hair cannot be left out without saying another: that category is passed over.
    assert found[5] == [[0, 1, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]]
    assert sorted(found) == [1, 2, 3, 4, 5]  # with the first, categories agree


def test_a_contradiction_is_refused():
    bank = Bank(np.eye(1), np.array([[1, 0, 0, 0, 0, 0]], np.uint8), 0.05)
    with pytest.raises(ValueError, match="contradicts itself"):
        completed(bank, [{"hair": ("!short", "!long")}])


class Encoded:
    """Features of texts, and which texts were asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return unit(np.random.default_rng(len(self.asked)).standard_normal((len(texts), 8)))


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    return load_model(save(tmp_path_factory.mktemp("bank"), make_model()))


@pytest.fixture
def kept(restored, tmp_path):
    """A model without a bank beside its checkpoint."""
    return dataclasses.replace(restored, path=tmp_path / "7")


def test_a_bank_is_read_from_beside_its_checkpoint(kept):
    encoded = Encoded()
    first = load_bank(kept, encoded, temperature=0.05)
    assert encoded.asked == [[kept.template.render(bits).text for bits in kept.categories]]
    second = load_bank(kept, encoded, temperature=0.1)
    assert len(encoded.asked) == 1
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(second.attributes, kept.categories)
    assert (first.temperature, second.temperature) == (0.05, 0.1)
    assert [path.name for path in kept.path.parent.iterdir()] == ["7.bank.npz"]


@pytest.mark.parametrize("change", ["model", "template", "categories", "damage", "cut off"])
def test_a_bank_of_something_else_is_made_anew(kept, change):
    encoded, path = Encoded(), kept.path.with_name("7.bank.npz")
    before = load_bank(kept, encoded, temperature=0.05)
    content = path.read_bytes()
    other = kept
    if change == "model":
        other = dataclasses.replace(kept, model_id="another")
    elif change == "template":
        listed = PromptTemplate(kept.schema, "list", kept.wording)
        other = dataclasses.replace(kept, template=listed)
    elif change == "categories":
        other = dataclasses.replace(kept, categories=kept.categories[::-1])
    elif change == "damage":
        middle = content.index(b"features.npy") + 200
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(content[:-30])
    after = load_bank(other, encoded, temperature=0.05)
    assert len(encoded.asked) == 2
    assert not np.array_equal(before.features, after.features)
    assert load_bank(other, encoded, temperature=0.05).features.tolist() == after.features.tolist()
    assert len(encoded.asked) == 2  # it was kept


def test_a_bank_that_cannot_be_kept_serves_all_the_same(kept):
    lost = dataclasses.replace(kept, path=kept.path.parent / "nowhere" / "7")
    encoded = Encoded()
    for _ in range(2):
        assert len(load_bank(lost, encoded, temperature=0.05).features) == len(kept.categories)
    assert len(encoded.asked) == 2
