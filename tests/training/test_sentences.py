"""Which sentence a row draws: how often, from what, and that all of it is of one sentence."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from steps import NO_AUGMENTATION, Setup, objective

from aima_jax.sharding import make_mesh
from aima_jax.text import Variation
from aima_jax.training import step as training_step
from aima_jax.training.step import CategoryTable, draw_partial_variants, draw_rows, draw_variants

ROWS, CATEGORIES, VARIANTS, LENGTH, BITS = 6000, 3, 4, 5, 6
PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def assert_rate(hits, expected):
    """The share of hits is within 4.5 standard deviations of what is expected."""
    assert abs(hits.mean() - expected) < 4.5 * np.sqrt(expected * (1 - expected) / hits.size)


def test_the_first_variant_is_kept_for_its_share_and_the_others_are_alike():
    drawn = np.asarray(draw_variants(jax.random.key(0), ROWS, VARIANTS, varied=0.6))
    assert_rate(drawn == 0, 0.4)
    for variant in (1, 2, 3):
        assert_rate(drawn == variant, 0.2)


@pytest.mark.parametrize(("variants", "varied"), [(1, 1.0), (4, 0.0)])
def test_without_others_or_a_share_every_row_has_the_first(variants, varied):
    assert not np.any(draw_variants(jax.random.key(0), 500, variants, varied=varied))


def test_partial_variants_are_alike_and_none_is_whole():
    whole = np.tile([[True, False, True, False, False]], (ROWS, 1))
    drawn = np.asarray(draw_partial_variants(jax.random.key(0), whole))
    assert set(drawn) == {1, 3, 4}
    for variant in (1, 3, 4):
        assert_rate(drawn == variant, 1 / 3)
    all_whole = np.ones((50, 3), bool)
    assert not np.any(draw_partial_variants(jax.random.key(0), all_whole))


def draw_both(key, whole):
    varied = draw_variants(key, len(whole), VARIANTS, varied=0.5)
    return varied, draw_partial_variants(key, whole)


def test_a_row_depends_on_key_and_its_number_alone_on_any_number_of_devices():
    whole = np.zeros((64, VARIANTS), bool)
    everything, fewer = draw_both(jax.random.key(0), whole), draw_both(jax.random.key(0), whole[:8])
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    split = jax.jit(draw_both)(jax.random.key(0), jax.device_put(whole, rows))
    for a, b, c in zip(everything, fewer, split, strict=True):
        np.testing.assert_array_equal(a[:8], b)
        np.testing.assert_array_equal(a, c)
    for a, b in zip(everything, draw_both(jax.random.key(1), whole), strict=True):
        assert np.any(a != b)


def numbered_table():
    """Sentence (c, v) has tokens and statements by which it is known."""
    number = np.arange(CATEGORIES * VARIANTS).reshape(CATEGORIES, VARIANTS)
    return CategoryTable(
        tokens=np.repeat(100 + number[..., None], LENGTH, axis=-1).astype(np.int32),
        phrase_ids=np.where(np.arange(LENGTH) == number[..., None] % LENGTH, 0, -1),
        said=(number[..., None] >> np.arange(BITS) & 1).astype(np.int8),
        whole=np.broadcast_to(np.arange(VARIANTS) % 2 == 0, number.shape),
        attributes=np.eye(CATEGORIES, BITS, dtype=np.uint8),
        presences=np.arange(BITS) != 2,
        words=np.array([7], np.int32),
    )


def test_all_that_a_row_draws_is_of_one_sentence_of_its_category():
    category = np.random.default_rng(0).integers(0, CATEGORIES, 400).astype(np.int32)
    batch = {"category": category, "image": np.zeros((400, 2, 2, 3), np.uint8)}
    chosen = objective(**{"sentences.varied": 0.5, "sentences.variants": VARIANTS})
    table = numbered_table()
    augmentation = PIXELS | NO_AUGMENTATION
    drawn = jax.jit(lambda key, table: draw_rows(key, batch, table, chosen, augmentation))
    rows = drawn(jax.random.key(3), table)
    rows = {name: np.asarray(value) for name, value in rows.items()}
    number = rows["tokens"][:, 0] - 100
    np.testing.assert_array_equal(number // VARIANTS, category)
    variant = number % VARIANTS
    assert set(variant) == set(range(VARIANTS))
    np.testing.assert_array_equal(rows["said"], table.said[category, variant])
    np.testing.assert_array_equal(rows["whole"], table.whole[category, variant])
    np.testing.assert_array_equal(rows["attributes"], table.attributes[category])
    assert (rows["presences"] == table.presences).all()
    # The one phrase of a sentence tells it: it is what is masked.
    assert (rows["mask"].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(rows["positions"][:, 0], number % LENGTH)
    np.testing.assert_array_equal(rows["targets"][:, 0], rows["tokens"][:, 0])


def test_each_use_of_chance_has_a_key_of_its_own(monkeypatch):
    """With one key for two uses, what is masked would hang on what is flipped."""
    keys = []

    def recorded(function):
        def call(key, *arguments, **options):
            keys.append(tuple(np.ravel(jax.random.key_data(key))))
            return jax.jit(lambda key: function(key, *arguments, **options))(key)

        return call

    names = ("augment", "mask_phrases", "draw_variants", "draw_partial_variants")
    for name in names:
        monkeypatch.setattr(training_step, name, recorded(getattr(training_step, name)))
    chosen = types.SimpleNamespace(
        needs=lambda *fields: True, varied=0.5, masking={"mask_rate": 0.5, "mask_capacity": 2}
    )
    batch = {"category": np.zeros(2, np.int32), "image": np.zeros((2, 2, 2, 3), np.uint8)}
    for seed in range(2):
        key = jax.random.key(seed)
        draw_rows(key, batch, numbered_table(), chosen, PIXELS | NO_AUGMENTATION)
        keys.append(tuple(np.ravel(jax.random.key_data(key))))
    assert len(set(keys)) == len(keys) == 2 * (len(names) + 1)


VARIATION = Variation(partial=0.7, absences=0.5, templates=0.5, synonyms=0.5, order=0.5)
VARIED = {"variants": VARIANTS, "variation": VARIATION}


def setup_of(varied, *, partial=0.0, **options):
    changes = {"sentences.varied": varied, "sentences.variants": VARIANTS}
    chosen = objective(**changes, **{"loss.partial.weight": partial})
    return Setup(chosen, **VARIED, **options)


@pytest.fixture(scope="module")
def alone():
    """A step that draws the first variants alone, and its metrics."""
    setup = setup_of(0.0)
    return setup, setup.take()[0]


@pytest.fixture(scope="module")
def varied():
    """A step that draws others for most rows, one more for each, and the state before it."""
    setup = setup_of(0.8, partial=1.0)
    return setup, setup.state


def test_more_variants_alone_change_nothing(alone, plain_step):
    few, (many, metrics) = Setup(objective()), alone
    assert many.table.tokens.shape[1] == VARIANTS
    length = min(x.table.tokens.shape[-1] for x in (few, many))
    assert (many.table.tokens[:, 0, :length] == few.table.tokens[:, 0, :length]).all()
    assert metrics["sdm"] == pytest.approx(plain_step[0]["sdm"], rel=1e-5)


def test_partial_sentences_beside_leave_the_other_losses_as_they_are(alone):
    _, expected = alone
    one = setup_of(0.0, partial=1.0).take()[0]
    for name in objective().weights:
        assert one[name] == pytest.approx(expected[name], rel=1e-4), name
    assert one["loss"] == pytest.approx(expected["loss"] + one["partial"], rel=1e-4)


def test_parts_on_many_devices_take_the_step_of_the_whole(alone, varied):
    one, one.state = varied
    metrics = one.take()[0]
    many = setup_of(0.8, partial=1.0, micro_batches=2, mesh=make_mesh())
    assert metrics["partial"] > 0
    assert many.take()[0] == pytest.approx(metrics, rel=1e-4)
    assert metrics["sdm"] != pytest.approx(alone[1]["sdm"], rel=1e-2)


def test_each_step_draws_anew(varied):
    setup, start = varied
    seen = set()
    for step in range(3):
        setup.state = dataclasses.replace(start, step=start.step + step)
        seen.add(setup.take()[0]["attribute_iou"])
    assert len(seen) == 3
