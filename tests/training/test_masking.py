"""Phrase masking: which phrases are chosen, what becomes of them, and what is reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aima_jax.text.tokenizer import MASK_TOKEN
from aima_jax.training.masking import attribute_words, mask_phrases

ROWS = 20_000
PHRASE_IDS = np.array([-1, 0, 0, -1, 1, 2, 2, 2, -1, 3, 4, 4, -1, -1], np.int32)
TOKENS = np.arange(100, 100 + len(PHRASE_IDS), dtype=np.int32)
WORDS = np.arange(1000, 1008, dtype=np.int32)  # none of them in the sentence
PHRASES = 5


def sentences(rows=ROWS, phrase_ids=PHRASE_IDS):
    return jnp.tile(TOKENS, (rows, 1)), jnp.tile(phrase_ids, (rows, 1))


def mask(rows=ROWS, phrase_ids=PHRASE_IDS, seed=0, mask_rate=0.15, capacity=9):
    """numpy arrays: masked tokens, positions, targets, mask."""
    masked = jax.jit(mask_phrases, static_argnames=("mask_rate", "mask_capacity"))(
        jax.random.key(seed),
        *sentences(rows, phrase_ids),
        mask_rate=mask_rate,
        mask_capacity=capacity,
        attribute_words=WORDS,
    )
    return tuple(map(np.asarray, masked))


def counted(positions, mask):
    """bool[rows, tokens]: the tokens whose position is reported."""
    counts = np.zeros((len(mask), len(TOKENS)), bool)
    row, _ = np.nonzero(mask)
    counts[row, positions[mask]] = True
    return counts


def chosen_phrases(counts, phrase_ids=PHRASE_IDS):
    """bool[rows, phrases]; fails where a phrase is chosen in part, or a token outside phrases."""
    assert not counts[:, phrase_ids < 0].any()
    phrases = []
    for phrase in range(phrase_ids.max() + 1):
        tokens = counts[:, phrase_ids == phrase]
        assert (tokens.all(1) == tokens.any(1)).all()
        phrases.append(tokens.all(1))
    return np.stack(phrases, 1)


def assert_rate(hits, expected):
    """The share of hits lies within 4.5 standard deviations of what is expected."""
    assert abs(hits.mean() - expected) < 4.5 * np.sqrt(expected * (1 - expected) / hits.size)


@pytest.mark.parametrize("mask_rate", [0.15, 0.6])
def test_phrases_are_chosen_whole_at_the_mask_rate_and_at_least_one(mask_rate):
    _, positions, _, counts_as_masked = mask(mask_rate=mask_rate)
    chosen = chosen_phrases(counted(positions, counts_as_masked))
    assert chosen.any(1).all()
    fallback = (1 - mask_rate) ** PHRASES / PHRASES
    for phrase in range(PHRASES):
        assert_rate(chosen[:, phrase], mask_rate + fallback)
    both = mask_rate**2  # the fallback chooses one alone
    assert_rate(chosen[:, 0] & chosen[:, 4], both)


def test_chosen_phrases_are_hidden_replaced_or_kept_whole():
    masked, positions, _, mask_ = mask()
    chosen = chosen_phrases(counted(positions, mask_))
    hidden, replaced, kept = (
        np.stack([test[:, phrase == PHRASE_IDS].all(1) for phrase in range(PHRASES)], 1)
        for test in (masked == MASK_TOKEN, np.isin(masked, WORDS), masked == TOKENS)
    )
    assert (hidden ^ replaced ^ kept).all()
    assert not (hidden & ~chosen).any() and not (replaced & ~chosen).any()
    for fate, share in ((hidden, 0.8), (replaced, 0.1), (kept, 0.1)):
        assert_rate(fate[chosen], share)
    for word in WORDS:
        assert_rate(masked[np.isin(masked, WORDS)] == word, 1 / len(WORDS))


def test_words_of_one_phrase_are_drawn_apart():
    masked, *_ = mask(mask_rate=1.0)
    first, second = masked[np.isin(masked[:, 1], WORDS)][:, 1:3].T
    assert_rate(first == second, 1 / len(WORDS))


def test_other_tokens_stay_and_positions_name_the_rest():
    masked, positions, targets, mask_ = mask(capacity=12)
    assert positions.dtype == np.int32 and positions.shape == mask_.shape == (ROWS, 12)
    counts = counted(positions, mask_)
    chosen_phrases(counts)  # nothing outside phrases
    assert (masked == TOKENS)[~counts].all()
    assert (targets == TOKENS[positions]).all()
    assert (counts.sum(1) == mask_.sum(1)).all()  # no position twice
    assert (np.diff(mask_.astype(int), axis=1) <= 0).all() and (positions[~mask_] == 0).all()


def test_capacity_admits_whole_phrases_in_random_order():
    """With everything chosen and room for three of four phrases of two tokens, each waits alike."""
    phrase_ids = np.array([-1, 0, 0, 1, 1, 2, 2, 3, 3, -1, -1, -1, -1, -1], np.int32)
    _, positions, _, mask_ = mask(phrase_ids=phrase_ids, mask_rate=1.0, capacity=7)
    chosen = chosen_phrases(counted(positions, mask_), phrase_ids)
    assert (chosen.sum(1) == 3).all()
    for phrase in range(4):
        assert_rate(chosen[:, phrase], 3 / 4)


def test_phrase_beyond_the_capacity_is_never_chosen():
    _, positions, _, mask_ = mask(rows=2000, mask_rate=0.0, capacity=2)
    chosen = chosen_phrases(counted(positions, mask_))
    assert (chosen.sum(1) == 1).all()
    assert not chosen[:, 2].any() and chosen[:, [0, 1, 3, 4]].any(0).all()


def test_sentence_without_phrases_stays():
    masked, positions, targets, mask_ = mask(rows=3, phrase_ids=np.full_like(PHRASE_IDS, -1))
    assert (masked == TOKENS).all() and not mask_.any()
    assert (positions == 0).all() and (targets == TOKENS[0]).all()


def test_more_capacity_than_tokens():
    _, positions, _, mask_ = mask(rows=10, mask_rate=1.0, capacity=20)
    assert positions.shape == (10, 20) and (mask_.sum(1) == 9).all()


def test_row_depends_on_key_and_its_number_alone():
    everything = mask(rows=64)
    fewer = mask(rows=10)
    for a, b in zip(everything, fewer, strict=True):
        np.testing.assert_array_equal(a[:10], b)
    assert len(np.unique(everything[0], axis=0)) > 10
    assert (everything[0] != mask(rows=64, seed=1)[0]).any()


def test_rows_split_over_devices_are_masked_the_same():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    tokens, phrase_ids = (jax.device_put(x, rows) for x in sentences(16))
    split = jax.jit(
        lambda *arrays: mask_phrases(
            jax.random.key(0), *arrays, mask_rate=0.15, mask_capacity=9, attribute_words=WORDS
        )
    )(tokens, phrase_ids)
    for a, b in zip(split, mask(rows=16), strict=True):
        np.testing.assert_array_equal(a, b)


def test_attribute_words_are_the_distinct_tokens_of_phrases():
    tokens = np.array([[9, 3, 5, 4], [9, 5, 7, 0]], np.int32)
    phrase_ids = np.array([[-1, 0, 0, -1], [-1, 0, 1, -1]], np.int32)
    words = attribute_words(tokens, phrase_ids)
    assert words.dtype == np.int32
    np.testing.assert_array_equal(words, [3, 5, 7])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attribute_words": jnp.zeros(0, jnp.int32)}, "attribute_words is empty"),
        ({"mask_capacity": 0}, "mask_capacity is 0; expected at least 1"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    arguments = {"mask_rate": 0.15, "mask_capacity": 4, "attribute_words": WORDS} | wrong
    with pytest.raises(ValueError, match=message):
        mask_phrases(jax.random.key(0), *sentences(2), **arguments)
