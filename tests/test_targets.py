"""Agreement of images with sentences, and the losses by it, against float64 numpy and loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aima_jax import losses
from aima_jax.attributes import attribute_iou
from aima_jax.pairs import statements, target_inputs, targets
from tfds_builders.peta.schema import COLUMNS, SCHEMA, SCHEMA_35

B, D, A, C = 12, 6, 7, 5  # batch, dim, attributes, categories
NAMES = ("info_nce", "sdm")
IMAGE_TARGETS = ("joint", "uniform")


def draw(batch=B, *, whole=0.3, dtype=np.float64):
    """Features, and images with sentences that are true of them: whole ones, vague ones, others."""
    rng = np.random.default_rng(0)
    categories = rng.permutation(2**A)[:C, None] >> np.arange(A) & 1
    labels = rng.integers(0, C, batch)
    attributes = categories[labels].astype(np.uint8)
    is_whole = rng.random(batch) < whole
    said = 2 * attributes.astype(np.int8) - 1
    said *= is_whole[:, None] | (rng.random((batch, A)) < rng.choice([0.2, 0.6], (batch, 1)))
    images, texts = (2 * rng.normal(size=(2, batch, D))).astype(dtype)
    return images, texts, labels, attributes, said, is_whole


def ours(name, images, texts, labels, *said, image_target="joint", temperature=0.1, **options):
    """A loss by agreement; with labels alone, one by category."""
    function = {"info_nce": losses.info_nce, "sdm": losses.similarity_distribution_matching}[name]
    options |= {"temperature": temperature, "image_target": image_target}
    return function(images, texts, labels=labels, said=said or None, **options)


def is_true(image_label, bits, sentence_label, said, whole):
    """Whether a sentence says nothing that is otherwise in an image."""
    if whole:
        return image_label == sentence_label
    for bit, statement in zip(bits, said, strict=True):
        if (statement == 1 and bit == 0) or (statement == -1 and bit == 1):
            return False
    return True


def joint(labels, attributes, said, whole):
    """The agreement a_ij and the joint P_ij = a_ij / n_j."""
    a = np.array(
        [
            [is_true(x, bits, y, s, w) for y, s, w in zip(labels, said, whole, strict=True)]
            for x, bits in zip(labels, attributes, strict=True)
        ],
        float,
    )
    return a, a / a.sum(axis=0)


def reference(name, images, texts, *facts, image_target, temperature=0.1):
    a, p = joint(*facts)
    image_weight = p if image_target == "joint" else a
    q_image = image_weight / image_weight.sum(axis=1, keepdims=True)
    q_text = p.T  # of each sentence over the images
    value = 0.0
    for rows, columns, q in ((images, texts, q_image), (texts, images, q_text)):
        for row, q_row in zip(rows, q, strict=True):
            cosines = columns @ row / np.linalg.norm(columns, axis=1) / np.linalg.norm(row)
            e = np.exp((cosines - cosines.max()) / temperature)
            p_row = e / e.sum()
            if name == "sdm":
                value += p_row @ (np.log(p_row) - np.log(q_row + 1e-8)) / len(rows)
            else:
                value += -q_row @ np.log(p_row) / len(rows) / 2
    return value


cases = pytest.mark.parametrize(
    ("name", "image_target"), [(name, target) for name in NAMES for target in IMAGE_TARGETS]
)


def test_the_draw_has_what_agreement_is_about():
    """Partial sentences are true of images of other categories, some of more, some of fewer."""
    _, _, labels, *said = draw()
    a, p = joint(labels, *said)
    assert np.diag(a).all() and (a != a.T).any()
    assert (a.astype(bool) & (labels[:, None] != labels[None, :])).any()
    assert len(np.unique(a.sum(axis=0))) > 3
    assert not np.allclose(p / p.sum(1, keepdims=True), a / a.sum(1, keepdims=True))


@pytest.mark.parametrize("image_target", IMAGE_TARGETS)
def test_targets_equal_the_formula_and_are_distributions(image_target):
    images, _, labels, *said = draw()
    with jax.enable_x64(True):
        everything = ((jnp.asarray(images),), target_inputs(labels, tuple(said)))
        image_q, text_q = targets(everything, everything, image_target=image_target)
    a, p = joint(labels, *said)
    weight = p if image_target == "joint" else a
    np.testing.assert_allclose(image_q, weight / weight.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(text_q, p.T, rtol=1e-12)
    for q in (image_q, text_q):
        np.testing.assert_allclose(np.asarray(q).sum(axis=1), 1, rtol=1e-12)


@cases
def test_value_equals_the_formula(name, image_target):
    expected = reference(name, *draw(), image_target=image_target)
    narrow = ours(name, *draw(dtype=np.float32), image_target=image_target)
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, expected, rtol=1e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            ours(name, *draw(), image_target=image_target), expected, rtol=1e-12
        )


@cases
def test_gradient_equals_finite_differences_of_the_formula(name, image_target):
    features, facts, step = np.array(draw()[:2]), draw()[2:], 1e-5
    with jax.enable_x64(True):
        gradient = jax.jit(
            jax.grad(lambda features: ours(name, *features, *facts, image_target=image_target))
        )(jnp.asarray(features))
    rng = np.random.default_rng(1)
    for _ in range(4):
        direction = rng.normal(size=features.shape)
        ahead, behind = (
            reference(
                name, *(features + sign * step * direction), *facts, image_target=image_target
            )
            for sign in (1, -1)
        )
        slope = np.sum(np.asarray(gradient) * direction)
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6)


@functools.partial(jax.jit, static_argnames=("name", "image_target", "chunk_size"))
def value_and_gradient(images, texts, *facts, **options):
    def loss(features):
        return ours(options.pop("name"), *features, *facts, **options)

    return jax.value_and_grad(loss)((images, texts))


def assert_close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
@cases
def test_chunks_give_value_and_gradient_of_the_whole(name, image_target, chunk_size):
    options = {"name": name, "image_target": image_target}
    with jax.enable_x64(True):
        everything = value_and_gradient(*draw(13), **options, chunk_size=None)
        assert_close(value_and_gradient(*draw(13), **options, chunk_size=chunk_size), everything)


@pytest.mark.parametrize("chunk_size", [None, 10])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_split_over_devices_is_still_the_whole_batch(name, chunk_size):
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    options = {"name": name, "image_target": "joint", "chunk_size": chunk_size}
    with jax.enable_x64(True):
        split = [jax.device_put(x, rows) for x in draw(24)]
        assert_close(
            value_and_gradient(*split, **options), value_and_gradient(*draw(24), **options)
        )


def test_memory_is_linear_in_the_batch():
    def temporaries(batch, chunk_size):
        arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in draw(batch, dtype=np.float32)]
        options = {"name": "sdm", "image_target": "joint", "chunk_size": chunk_size}
        compiled = value_and_gradient.lower(*arguments, **options).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(4096, 16) < 4.2 * temporaries(1024, 16)
    assert temporaries(4096, 16) < 4096 * 4096 * 4 / 4 < temporaries(4096, None)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_batch_does_not_matter(name):
    order = np.random.default_rng(2).permutation(B)
    with jax.enable_x64(True):
        shuffled = ours(name, *(x[order] for x in draw()))
        np.testing.assert_allclose(shuffled, ours(name, *draw()), rtol=1e-12)


@cases
def test_with_whole_sentences_alone_agreement_is_the_category(name, image_target):
    images, texts, labels, *said = draw(whole=1.0)
    with jax.enable_x64(True):
        by_agreement = ours(name, images, texts, labels, *said, image_target=image_target)
        np.testing.assert_allclose(by_agreement, ours(name, images, texts, labels), rtol=1e-12)


@jax.jit
def targets_of(facts):
    everything = ((jnp.zeros((len(facts[0]), D)),), facts)
    return targets(everything, everything)


bits = st.lists(st.booleans(), min_size=A, max_size=A)
signs = st.lists(st.sampled_from([-1, 0, 1]), min_size=A, max_size=A)


@settings(max_examples=200, deadline=None)
@given(st.lists(bits, min_size=1, max_size=8), signs, st.data())
def test_a_more_specific_sentence_never_has_more_positives(images, said, data):
    """Whatever is said besides, no image is gained, and those that stay weigh no less."""
    more = [s or data.draw(st.sampled_from([-1, 0, 1])) for s in said]
    attributes = np.array([*images, [s == 1 for s in more], [s == 1 for s in more]], np.uint8)
    count = len(attributes)
    sentences = np.zeros((count, A), np.int8)
    sentences[-2:] = said, more
    facts = target_inputs(np.arange(count), (attributes, sentences, np.zeros(count, bool)))
    _, text_q = targets_of(facts)
    vague, specific = np.asarray(text_q[-2:])
    assert not (specific[vague == 0] > 0).any()
    assert (specific[specific > 0] >= vague[specific > 0]).all()
    assert facts[-1][-1] <= facts[-1][-2]


def test_identity_reads_categories_from_whole_sentences_alone():
    rng = np.random.default_rng(0)
    image_logits, text_logits = 3 * rng.normal(size=(2, B, C))
    labels, mask = rng.integers(0, C, B), rng.random(B) < 0.4

    def nll(logits, label):
        return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]

    def rows(logits, where):
        return [nll(logits[i], labels[i]) for i in np.flatnonzero(where)]

    image = np.mean(rows(image_logits, np.ones(B)))
    with jax.enable_x64(True):
        loss = functools.partial(losses.identity_loss, image_logits, labels=labels)
        expected = (image + np.mean(rows(text_logits, mask))) / 2
        np.testing.assert_allclose(loss(text_logits, text_mask=mask), expected, rtol=1e-12)
        spoilt = np.where(mask[:, None], text_logits, 1e6)
        np.testing.assert_allclose(loss(spoilt, text_mask=mask), expected, rtol=1e-12)
        np.testing.assert_allclose(
            loss(text_logits, text_mask=np.zeros(B, bool)), image / 2, rtol=1e-12
        )
        np.testing.assert_allclose(
            loss(text_logits, text_mask=np.ones(B, bool)), loss(text_logits), rtol=1e-12
        )


def test_statements_are_those_of_the_words_or_of_a_whole_category():
    _, _, _, attributes, said, whole = draw()
    assert whole.any() and not whole.all()
    found = np.asarray(statements(attributes, said, whole))
    for row, bits, words, is_whole in zip(found, attributes, said, whole, strict=True):
        expected = {(bit, 1) for bit in np.flatnonzero(bits)}
        if not is_whole:
            expected = {(bit, int(words[bit])) for bit in np.flatnonzero(words)}
        assert {(i % A, 1 if i < A else -1) for i in np.flatnonzero(row)} == expected


@pytest.mark.parametrize("schema", [SCHEMA, SCHEMA_35])
def test_bits_of_peta_that_say_an_absence_are_in_no_set(schema):
    """By the names of its label file: people alike in nothing but `accessoryNothing` have IoU 0."""
    names = list(COLUMNS)[: schema.size]
    absent = {"accessoryNothing", "carryingNothing"}
    bits = np.random.default_rng(0).random((8, len(names))) < 0.2
    bits[:2] = False
    bits[0, [names.index(name) for name in ("accessoryHat", *absent)]] = True
    bits[1, [names.index(name) for name in ("hairLong", *absent)]] = True
    sets = [{n for n, bit in zip(names, row, strict=True) if bit} - absent for row in bits]
    expected = [[len(a & b) / len(a | b) if a | b else 1.0 for b in sets] for a in sets]
    assert expected[0][1] == 0
    said = np.where(bits, 1, -1)  # a partial sentence that says of each bit what it is
    presences = np.broadcast_to(schema.presences, bits.shape)
    whole = np.asarray(statements(bits, said, np.ones(8, bool), presences))
    np.testing.assert_allclose(attribute_iou(whole, whole), expected, rtol=1e-12)
    partial = np.asarray(statements(bits, said, np.zeros(8, bool), presences))
    assert (partial.sum(axis=1) == len(names) - 2).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, "said is given without labels"),
        ({"image_target": "half"}, "image_target is 'half'; expected 'joint' or 'uniform'"),
        ({"said": np.zeros((B, A + 1), np.int8)}, r"said has shape \[12, 8\].*attributes=7"),
        ({"whole": np.zeros(B - 1, bool)}, r"whole has shape \[11\]"),
    ],
)
def test_wrong_arguments_are_named(changed, message):
    names = ("images", "texts", "labels", "attributes", "said", "whole")
    arguments = dict(zip(names, draw(), strict=True)) | {"image_target": "joint"} | changed
    target = arguments.pop("image_target")
    with pytest.raises(ValueError, match=message):
        ours("info_nce", *arguments.values(), image_target=target)


def test_a_mask_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"text_mask has shape \[3\]"):
        losses.identity_loss(
            np.ones((B, C)), np.ones((B, C)), np.zeros(B, int), text_mask=np.ones(3, bool)
        )
