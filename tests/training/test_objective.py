"""What a step computes for which losses, and a sixth loss by the table alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from steps import NO_AUGMENTATION, Setup, objective, only

from aima_jax.evaluation.report import write_report
from aima_jax.fields import check_config
from aima_jax.losses import LOSSES, Loss, LossBatch
from aima_jax.models import AIMA
from aima_jax.training.logs import Progress
from aima_jax.training.objective import Objective
from configs import common

PARTS = {
    "info_nce": {"image_features", "encode_text"},
    "sdm": {"image_features", "encode_text"},
    "identity": {"image_features", "encode_text", "classify"},
    "map": {"encode_image", "encode_text", "fuse", "predict_masked"},
    "attribute_iou": {"encode_text"},
    "partial": {"image_features", "encode_text"},
}


@pytest.mark.parametrize(("name", "parts"), PARTS.items())
def test_what_no_loss_with_a_weight_needs_is_not_computed(name, parts, monkeypatch):
    called = []

    def noted(part):
        method = getattr(AIMA, part)

        def call(self, *arguments):
            called.append((part, len(arguments[0])))
            return method(self, *arguments)

        return call

    for part in set().union(*PARTS.values()):
        monkeypatch.setattr(AIMA, part, noted(part))
    setup = Setup(only(**{name: 1.0}), augmentation=NO_AUGMENTATION)
    setup.step.lower(setup.state, setup.batch(), setup.table)
    assert {part for part, _ in called} == parts
    assert [rows for part, rows in called if part == "encode_text"] == [len(setup.rows["image"])]


def distance(batch, *, margin):
    """The loss of a plug-in: the squared distance of features beyond a margin."""
    apart = jnp.sum((batch.image_features - batch.text_features) ** 2, axis=-1)
    return jnp.mean(jnp.maximum(apart - margin, 0))


@pytest.fixture
def sixth(monkeypatch):
    """A config in which a sixth loss has a weight."""
    entry = Loss(
        "Distance",
        distance,
        needs=("image_features", "text_features"),
        options={"margin": (0.0, 1)},
    )
    monkeypatch.setitem(LOSSES, "distance", entry)
    config = common.get_config()
    config.mask_capacity = 4
    config.loss.distance = {"weight": 0.5, "margin": 0.25}
    return config


def test_a_sixth_loss_is_a_function_an_entry_and_a_default(sixth, plain_step, capsys, tmp_path):
    check_config(sixth)
    (metrics,) = Setup(Objective.from_config(sixth)).take()
    sixth.loss.distance.weight = 0.0
    assert "distance" not in Objective.from_config(sixth).weights
    five, _ = plain_step
    assert metrics["distance"] > 0.25
    assert metrics["loss"] == pytest.approx(five["loss"] + 0.5 * metrics["distance"], rel=1e-5)

    progress = Progress(1, first_step=0, batch_size=1, shown=True)
    progress.show(1, metrics | progress.rates(1, 0.0))
    assert f"distance {metrics['distance']:.3g}" in capsys.readouterr().out
    row = '{"step": 1, "train/sdm": 1.0, "train/distance": 1.0}'
    widths = []
    for columns in (row.replace("distance", "unknown"), row):
        (tmp_path / "metrics.jsonl").write_text(columns + "\n")
        write_report(tmp_path, metrics_path=tmp_path / "metrics.jsonl", rankings=[])
        with Image.open(tmp_path / "curves.png") as picture:
            widths.append(picture.width)
    assert widths[1] == pytest.approx(2 * widths[0], abs=3)

    sixth.loss.distance.margin = 2.0
    with pytest.raises(ValueError, match=r"^config\.loss\.distance\.margin=2\.0 must be 0 or more"):
        check_config(sixth)


def test_masked_tokens_of_parts_count_as_those_of_the_whole_batch():
    """With every phrase masked, some rows have more masked tokens than others."""
    chosen = objective(mask_rate=1.0, mask_capacity=12)
    whole, parts = (
        Setup(chosen, augmentation=NO_AUGMENTATION, micro_batches=n).take()[0] for n in (1, 8)
    )
    assert parts == pytest.approx(whole, rel=1e-5)
    assert np.isfinite(whole["map_accuracy"])


def sentences():
    """A batch with whole sentences and partial ones, and another partial sentence for each row."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, (4, 6))
    category = rng.integers(0, 4, 10)
    attributes = kinds[category]
    signs = 2 * attributes - 1
    whole = rng.random(10) < 0.5
    said = np.where(whole[:, None] | (rng.random((10, 6)) < 0.4), signs, 0)
    image, text, other = rng.normal(size=(3, 10, 5))
    return LossBatch(
        category=category,
        attributes=attributes.astype(np.uint8),
        said=said.astype(np.int8),
        whole=whole,
        image_features=image,
        text_features=text,
        image_logits=rng.normal(size=(10, 4)),
        text_logits=rng.normal(size=(10, 4)),
        partial_text_features=other,
        partial_said=np.where(rng.random((10, 6)) < 0.3, signs, 0).astype(np.int8),
        presences=np.broadcast_to(np.arange(6) != 3, (10, 6)),  # bit 3 says an absence
    )


def log_softmax(x):
    return x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1)[:, None]


def logits(rows, columns, temperature):
    rows, columns = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    return rows @ columns.T / temperature


def kl(log_p, q):
    return np.mean(np.sum(np.exp(log_p) * (log_p - np.log(q + 1e-8)), axis=1))


def agree(x, s):
    return not any((b == 0 and t == 1) or (b == 1 and t == -1) for b, t in zip(x, s, strict=True))


def by_agreement(batch, said, whole):
    """q of images over sentences and of sentences over images, from METHOD's definitions."""
    a = np.array(
        [
            [
                c == d if is_whole else agree(x, s)
                for d, s, is_whole in zip(batch.category, said, whole, strict=True)
            ]
            for c, x in zip(batch.category, batch.attributes, strict=True)
        ],
        float,
    )
    joint = a / a.sum(axis=0)
    return joint / joint.sum(axis=1, keepdims=True), joint.T


def sdm(image, text, q_image, q_text):
    both = logits(image, text, 0.1)
    return kl(log_softmax(both), q_image) + kl(log_softmax(both.T), q_text)


def by_hand(name, batch):
    image, text = batch.image_features, batch.text_features
    q_image, q_text = by_agreement(batch, batch.said, batch.whole)
    both = logits(image, text, 0.1)
    if name == "info_nce":
        ways = q_image * log_softmax(both), q_text * log_softmax(both.T)
        return -sum(way.sum(axis=1).mean() for way in ways) / 2
    if name == "sdm":
        return sdm(image, text, q_image, q_text)
    if name == "partial":
        targets = by_agreement(batch, batch.partial_said, np.zeros(10, bool))
        return sdm(image, batch.partial_text_features, *targets)
    if name == "identity":
        rows = np.arange(10)
        of_image, of_text = (
            -log_softmax(x)[rows, batch.category] for x in (batch.image_logits, batch.text_logits)
        )
        return (of_image.mean() + of_text[batch.whole].mean()) / 2
    sets = [
        {(bit, 1) for bit in np.flatnonzero(x)}
        if is_whole
        else {(bit, s[bit]) for bit in np.flatnonzero(s)}
        for x, s, is_whole in zip(batch.attributes, batch.said, batch.whole, strict=True)
    ]
    sets = [{(bit, sign) for bit, sign in each if bit != 3} for each in sets]
    iou = np.array([[len(a & b) / len(a | b) if a | b else 1.0 for b in sets] for a in sets])
    return kl(log_softmax(logits(text, text, 0.1)), np.exp(log_softmax(iou / 0.1)))


@pytest.mark.parametrize("chunk_size", [0, 3])
@pytest.mark.parametrize("name", ["info_nce", "sdm", "identity", "attribute_iou", "partial"])
def test_each_entry_follows_what_sentences_say(name, chunk_size):
    config = common.get_config()
    config.update_from_flattened_dict(
        {
            "loss.temperature": 0.1,
            "loss.labels": "agreement",
            "loss.chunk_size": chunk_size,
            "loss.info_nce.multi_positive": True,
            "loss.partial.weight": 1.0,
        }
    )
    options = Objective.from_config(config).options[name]
    batch = sentences()
    assert 1 < batch.whole.sum() < 9
    with jax.enable_x64(True):
        value = LOSSES[name].function(batch, **options)
    np.testing.assert_allclose(value, by_hand(name, batch), rtol=1e-6)
