"""What a step computes for which losses, and a sixth loss by the table alone."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_step import NO_AUGMENTATION, Setup, objective, only

from aima_jax.config import check
from aima_jax.evaluation.report import write_report
from aima_jax.losses import LOSSES, Loss
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
    setup.take()
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


def test_a_sixth_loss_is_a_function_an_entry_and_a_default(sixth, capsys, tmp_path):
    check(sixth)
    (metrics,) = Setup(Objective.from_config(sixth), augmentation=NO_AUGMENTATION).take()
    sixth.loss.distance.weight = 0.0
    (five,) = Setup(Objective.from_config(sixth), augmentation=NO_AUGMENTATION).take()
    assert "distance" not in five
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
        check(sixth)


def test_masked_tokens_of_parts_count_as_those_of_the_whole_batch():
    """With every phrase masked, some rows have more masked tokens than others."""
    chosen = objective(mask_rate=1.0, mask_capacity=12)
    whole, parts = (
        Setup(chosen, augmentation=NO_AUGMENTATION, micro_batches=n).take()[0] for n in (1, 8)
    )
    assert parts == pytest.approx(whole, rel=1e-5)
    assert np.isfinite(whole["map_accuracy"])
