"""The dataset report: its numbers counted anew, its picture, and its command line."""

import collections

import numpy as np
import PIL.Image
import pytest
import scipy.io
from stand_ins import small_market, small_peta

from aima_jax.cli import main
from aima_jax.text import PromptTemplate, tokenize
from tfds_builders import describe as module
from tfds_builders.describe import describe, lines
from tfds_builders.pa100k.wording import WORDING
from tfds_builders.prepare import prepare


def iou(a, b):
    """Of two sets, as the paper defines it."""
    return len(a & b) / len(a | b) if a | b else 1.0


def test_numbers_of_the_real_crops(shared_data, tmp_path):
    folder = prepare("pa100k", manual_dir=shared_data / "pa100k_2000", data_dir=tmp_path)
    report = describe(folder)
    file = scipy.io.loadmat(shared_data / "pa100k_2000/PA-100K/annotation/annotation.mat")
    rows = {split: file[f"{split}_label"] for split in ("train", "val", "test")}
    held = {split: [tuple(row) for row in labels.tolist()] for split, labels in rows.items()}

    for split, labels in rows.items():
        found = report.splits[split]
        assert found.pictures == len(labels)
        assert found.people is None
        counted = zip(found.categories.tolist(), found.pictures_per_category, strict=True)
        assert {tuple(row): count for row, count in counted} == collections.Counter(held[split])
        np.testing.assert_allclose(found.frequency, labels.mean(0))
        assert found.seen_pictures == sum(row in set(held["train"]) for row in held[split])
    test = report.splits["test"]
    assert (len(test.categories), test.seen.sum(), (~test.seen).sum()) == (210, 152, 58)
    assert report.splits["train"].seen.all()

    every = np.concatenate(list(rows.values())).astype(bool)
    for row in range(26):
        for column in range(26):
            both = (every[:, row] & every[:, column]).sum()
            expected = both / every[:, row].sum()
            assert report.co_occurrence[row, column] == pytest.approx(expected, rel=1e-6)

    sets = [frozenset(np.flatnonzero(row)) for row in sorted(set(held["train"]))]
    pairs = [iou(a, b) for number, a in enumerate(sets) for b in sets[number + 1 :]]
    np.testing.assert_allclose(report.iou, pairs, rtol=1e-12)

    distinct = sorted(set().union(*held.values()))
    for name, tokens in report.tokens.items():
        template = PromptTemplate(report.schema, name, WORDING)
        texts = [template.render(np.array(row, np.uint8)).text for row in distinct]
        np.testing.assert_array_equal(tokens, (tokenize(texts) != 0).sum(1))
        assert tokens.max() <= 77
    assert len(report.tokens) >= 3


def test_many_categories_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_CATEGORIES", 5)
    raw = small_peta(tmp_path / "raw")
    folder = prepare("peta", manual_dir=raw, data_dir=tmp_path / "data")
    report = describe(folder)
    assert len(report.splits["train"].categories) == 19
    assert len(report.iou) == 5 * 4 // 2


def test_command_line(tmp_path, capsys, monkeypatch):
    raw = small_market(tmp_path / "raw")
    monkeypatch.chdir(tmp_path)
    command = ["describe", "market1501_attribute", f"--data_dir={tmp_path / 'data'}"]
    assert main(command) == 2
    assert "market1501_attribute is not prepared there; run aima" in capsys.readouterr().err

    prepare("market1501_attribute", manual_dir=raw, data_dir=tmp_path / "data")
    capsys.readouterr()
    assert main(command) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (
        ["train", "test"],
        ["pictures", "4", "8"],
        ["people", "2", "2"],
        ["categories", "1", "1"],
        ["unseen", "0", "0"],
        ["upper_color=black", "100.0", "100.0"],
        ["upper_color=white", "0.0", "0.0"],
    ):
        assert row in shown
    with PIL.Image.open(tmp_path / "market1501_attribute.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 900
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


def test_damaged_dataset(tmp_path, capsys):
    raw = small_market(tmp_path / "raw")
    folder = prepare("market1501_attribute", manual_dir=raw, data_dir=tmp_path / "data")
    (folder / "labels-train.npz").unlink()
    command = ["describe", "market1501_attribute", f"--data_dir={tmp_path / 'data'}"]
    assert main([*command, f"--picture={tmp_path / 'x.png'}"]) == 2
    assert "labels-train.npz is missing" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_one_category_alone(tmp_path):
    """Everybody in the small Market looks the same: there is no pair to compare."""
    raw = small_market(tmp_path / "raw")
    folder = prepare("market1501_attribute", manual_dir=raw, data_dir=tmp_path / "data")
    report = describe(folder)
    assert len(report.iou) == 0
    assert "IoU between training categories" not in "\n".join(lines(report))
