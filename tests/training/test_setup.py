"""Which pictures are trained on, and which validated on, by the config."""

import dataclasses
import pathlib

import numpy as np
import pytest
from splits import make_split

from aima_jax.data import Dataset, categories, hold_out_categories
from aima_jax.training.setup import load_splits
from configs import common


@pytest.fixture
def dataset(monkeypatch):
    """Eight categories of five pictures each in every split, in memory."""
    bits = np.arange(40)[:, None] // 5 >> np.arange(3) & 1
    one = dataclasses.replace(make_split(40), attributes=bits.astype(np.uint8))
    splits = {name: dataclasses.replace(one, split=name) for name in ("train", "val", "test")}
    monkeypatch.setattr(Dataset, "split", lambda self, name: splits[name])
    counts = {name: len(split) for name, split in splits.items()}
    return Dataset(pathlib.Path("here"), "greys", one.schema, one.wording, {}, counts, {})


def split_by(dataset, **fields):
    config = common.get_config()
    config.update(fields)
    return load_splits(config, dataset)


@pytest.mark.parametrize(
    ("fields", "trained", "validated"),
    [
        ({}, 40, "val"),
        ({"selection": "latest"}, 40, None),
        ({"selection": "test"}, 40, "test"),
        ({"selection": "test", "validation_categories": 2}, 40, "test"),
        ({"selection": "latest", "validation_categories": 2}, 30, "train"),
        ({"validation_categories": 2}, 30, "train"),
    ],
)
def test_the_config_says_what_is_validated_on(dataset, fields, trained, validated):
    train, validation = split_by(dataset, **fields)
    assert (train.split, len(train)) == ("train", trained)
    assert (validation and validation.split) == validated


def test_without_a_validation_split_none_is_validated_on(dataset):
    without = dataclasses.replace(dataset, counts={"train": 40, "test": 40})
    assert split_by(without)[1] is None


def held_out(split):
    return {tuple(row) for row in categories(split.attributes)[0].tolist()}


def test_the_seed_draws_the_categories_that_are_held_out(dataset):
    """Each of the eight is drawn by some seed; none is in both parts."""
    drawn = []
    for seed in range(12):
        train, validation = split_by(dataset, validation_categories=2, seed=seed)
        assert len(held_out(validation)) == 2
        assert held_out(train).isdisjoint(held_out(validation))
        by_hand = hold_out_categories(dataset.split("train"), 2, seed=seed)[1]
        np.testing.assert_array_equal(validation.filename, by_hand.filename)
        drawn.append(held_out(validation))
    assert len(set().union(*drawn)) == 8
