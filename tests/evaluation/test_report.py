"""The pictures of the report: what they show, and that they are complete or absent."""

import json

import numpy as np
import pytest
from PIL import Image

from aima_jax.evaluation.report import Ranking, draw_ranking, write_report

GREEN, RED, GRAY = (26, 143, 74), (208, 59, 59), (154, 161, 169)
BLUE = (0, 0, 200)


def picture(height=96, width=48, color=BLUE):
    return np.full((height, width, 3), color, np.uint8)


def count(image, color):
    return int((np.asarray(image) == color).all(axis=-1).sum())


def ranking(sentence="A woman wears a red top.", images=10):
    correct = [place % 3 == 0 for place in range(images)]
    scores = np.linspace(0.9, -0.1, images).tolist()
    return Ranking(sentence, [picture()] * images, correct, scores)


def write_metrics(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_frames_tell_right_from_wrong():
    one_right = draw_ranking("x", [picture()], correct=[True], scores=[0.5])
    one_wrong = draw_ranking("x", [picture()], correct=[False], scores=[0.5])
    unknown = draw_ranking("x", [picture()], scores=[0.5])
    frame = count(one_right, GREEN)
    assert frame > 1000
    assert count(one_right, RED) == 0
    assert count(one_wrong, RED) > 1000
    assert count(one_wrong, GREEN) == 0
    assert count(unknown, GREEN) == count(unknown, RED) == 0
    assert count(unknown, GRAY) > 1000
    mixed = draw_ranking("x", [picture()] * 3, correct=[True, False, True], scores=[3.0, 2.0, 1.0])
    assert count(mixed, GREEN) > 1.9 * frame
    assert count(mixed, RED) > 0.9 * frame


def test_images_stand_in_their_order():
    colors = [(0, 0, 10 * place) for place in range(13)]
    drawn = draw_ranking("x", [picture(color=c) for c in colors], scores=[0.0] * 13)
    corners = [np.argwhere((np.asarray(drawn) == c).all(axis=-1)).min(axis=0) for c in colors]
    assert sorted(map(tuple, corners)) == list(map(tuple, corners))
    assert len({row for row, _ in map(tuple, corners)}) == 2  # ten in the first row


@pytest.mark.parametrize("size", [(384, 128), (10, 300), (300, 10), (1, 1), (2000, 900)])
def test_images_of_any_size_fit_their_tile(size):
    drawn = draw_ranking("x", [picture(*size), picture()], scores=[1.0, 0.5])
    tall = draw_ranking("x", [picture(), picture()], scores=[1.0, 0.5])
    assert drawn.height == tall.height
    assert count(drawn, BLUE) > count(tall, BLUE) // 2


def test_pil_images_are_drawn_as_arrays_are():
    arrays = draw_ranking("x", [picture()], scores=[0.5])
    images = draw_ranking("x", [Image.fromarray(picture())], scores=[0.5])
    assert np.array_equal(arrays, images)


@pytest.mark.parametrize("sentence", ["word " * 60, "x" * 400, "Größe Σ 🙂\n\ttab"])
def test_long_sentences_wrap_and_nothing_is_cut(sentence):
    short = draw_ranking("x", [picture()] * 3, scores=[0.5] * 3)
    drawn = draw_ranking(sentence, [picture()] * 3, scores=[0.5] * 3)
    assert drawn.width == short.width
    assert (drawn.height > short.height) == (len(sentence) > 100)
    border = np.concatenate([np.asarray(drawn)[:, -20:].ravel(), np.asarray(drawn)[:, :20].ravel()])
    assert (border == 255).all()


@pytest.mark.parametrize(
    ("images", "correct", "scores"), [(2, None, 3), (2, [True], 2), (0, None, 0)]
)
def test_numbers_that_do_not_agree_are_refused(images, correct, scores):
    with pytest.raises(ValueError, match="expected as many of each"):
        draw_ranking("x", [picture()] * images, correct=correct, scores=[0.5] * scores)


def test_report_has_curves_and_rankings(tmp_path):
    rows = [
        {"step": step, "epoch": step / 10, "train/loss": 10 / step, "train/sdm": 5 / step}
        for step in range(1, 60)
    ]
    rows.insert(30, {"step": 30, "val/R1": 0.2, "val/mAP": 0.1})
    rows.append({"step": 60, "train/loss": float("nan"), "val/R1": 0.4, "val/mAP": 0.3})
    metrics = write_metrics(tmp_path / "metrics.jsonl", rows)
    metrics.write_text(metrics.read_text() + '{"step": 61, "trai')
    write_report(tmp_path / "report", metrics_path=metrics, rankings=[ranking()] * 12)
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["curves.png", "rankings.png"]
    with Image.open(tmp_path / "report" / "rankings.png") as page:
        one = draw_ranking(**ranking()._asdict())
        assert page.height > 12 * one.height
        assert count(page, GREEN) == pytest.approx(12 * count(one, GREEN), rel=0.02)


def panels(tmp_path, rows):
    metrics = write_metrics(tmp_path / "metrics.jsonl", rows)
    write_report(tmp_path, metrics_path=metrics, rankings=[])
    with Image.open(tmp_path / "curves.png") as image:
        return image.size


def test_curves_have_a_panel_for_each_loss_and_one_for_validation(tmp_path):
    names = ["train/loss", "train/info_nce", "train/map", "val/R1", "val/mAP", "train/other"]
    one = panels(tmp_path, [{"step": 1, "train/loss": 1.0}])
    three = panels(tmp_path, [{"step": 1, "train/loss": 1.0, "train/sdm": 1.0, "val/R1": 0.5}])
    four = panels(tmp_path, [{"step": s, **dict.fromkeys(names, 0.5)} for s in (1, 2)])
    assert three[0] == pytest.approx(3 * one[0], abs=3)
    assert three[1] == one[1]
    assert four[1] == pytest.approx(2 * one[1], abs=3)
    assert four[0] == three[0]


def test_nothing_to_show_leaves_no_picture_of_an_earlier_report(tmp_path):
    rows = [{"step": 1, "train/loss": 1.0}]
    metrics = write_metrics(tmp_path / "metrics.jsonl", rows)
    folder = tmp_path / "report"
    write_report(folder, metrics_path=metrics, rankings=[ranking()])
    assert len(list(folder.iterdir())) == 2
    write_report(folder, metrics_path=tmp_path / "missing.jsonl", rankings=[])
    assert list(folder.iterdir()) == []


def test_a_full_disk_leaves_the_old_picture(tmp_path, monkeypatch):
    metrics = write_metrics(tmp_path / "metrics.jsonl", [])
    write_report(tmp_path, metrics_path=metrics, rankings=[ranking()])
    before = (tmp_path / "rankings.png").read_bytes()

    def half(self, file, format):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path, metrics_path=metrics, rankings=[ranking("Another sentence.")])
    assert (tmp_path / "rankings.png").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "rankings.png"]


def test_the_star_is_at_the_checkpoint_that_is_evaluated():
    """Of equal scores both take the latest."""
    from matplotlib.figure import Figure

    from aima_jax.checkpoint import best_first
    from aima_jax.evaluation.report import _plot_scores

    axis = Figure().add_subplot()
    _plot_scores(axis, {"val/R1": np.array([[4, 8, 12], [0.5, 0.5, 0.25]])})
    assert best_first({4: 0.5, 8: 0.5, 12: 0.25})[0] == 8
    assert axis.get_title().endswith("best Rank-1 50.0% at step 8")
