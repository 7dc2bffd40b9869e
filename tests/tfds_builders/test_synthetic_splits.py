"""The plan of a rendered set: who is in which picture, and in which split."""

import hashlib

import numpy as np
import pytest

from tfds_builders.synthetic_pedestrians import splits as module
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema
from tfds_builders.synthetic_pedestrians.splits import SPLITS, Size, plan

SIZE = Size(train=600, val=60, test=150, seed=4)


@pytest.fixture(scope="module")
def splits():
    return plan(SIZE)


def rows(split):
    return {row.tobytes() for row in split.categories}


def test_a_third_or_more_of_the_test_categories_never_occur_in_training():
    for seed in range(3):
        splits = plan(Size(seed=seed))
        train, test = rows(splits["train"]), rows(splits["test"])
        assert len(train) == 600
        assert len(test) == 83
        assert len(test - train) == 28


def test_every_category_has_pictures_and_the_vector_of_one(splits):
    for split in splits.values():
        counts = {}
        for index in range(split.pictures):
            row = split.assignment(index).attributes.tobytes()
            counts[row] = counts.get(row, 0) + 1
        assert counts.keys() == rows(split)
        assert min(counts.values()) >= 2


def test_vectors_are_descriptions_of_what_can_be_seen(splits):
    for split in splits.values():
        for row in split.categories:
            description = synthetic_schema.decode(row)
            np.testing.assert_array_equal(synthetic_schema.encode(description), row)
            if description["view"] == "back":
                assert not description["glasses"]
                assert (description["bag"], description["upper_pattern"]) != ("backpack", "logo")


def test_every_bit_occurs_in_training():
    assert plan(Size())["train"].categories.any(0).all()


def test_nobody_is_in_two_splits_and_names_are_in_order(splits):
    people, names = {}, []
    for name in SPLITS:
        shown = [splits[name].assignment(index) for index in range(splits[name].pictures)]
        people[name] = {one.identity for one in shown}
        own = [one.filename for one in shown]
        assert own == sorted(own)
        assert all(0 <= one.camera < 6 for one in shown)
        names += own
    assert len(set(names)) == len(names)
    assert not people["train"] & people["test"]
    assert not people["val"] & people["test"]
    assert not people["train"] & people["val"]


def test_an_identity_wears_the_same_in_all_its_pictures(splits):
    worn = {}
    for index in range(splits["train"].pictures):
        shown = splits["train"].assignment(index)
        description = synthetic_schema.decode(shown.attributes)
        clothes = (description["upper_color"], description["lower_type"], description["gender"])
        assert worn.setdefault(shown.identity, clothes) == clothes
    assert len(worn) > 50


def test_the_plan_follows_from_the_seed_alone(splits):
    again, other = plan(SIZE), plan(Size(SIZE.train, SIZE.val, SIZE.test, seed=5))
    for name in SPLITS:
        np.testing.assert_array_equal(splits[name].categories, again[name].categories)
        assert splits[name].people == again[name].people
        assert rows(splits[name]) != rows(other[name])
        assert splits[name].render(3) == again[name].render(3)
        assert splits[name].render(3) != other[name].render(3)


def test_an_identity_and_a_camera_keep_their_seed_and_pictures_do_not(splits, monkeypatch):
    seeds = []
    monkeypatch.setattr(module, "render", lambda description, **given: seeds.append(given))
    kept = {"identity": {}, "camera": {}}
    for index in range(60):
        shown = splits["train"].assignment(index)
        splits["train"].render(index)
        for kind, by_number in kept.items():
            seed = seeds[-1][kind]
            assert by_number.setdefault(getattr(shown, kind), seed) == seed
    assert all(len(set(known.values())) == len(known) > 1 for known in kept.values())
    assert len({given["picture"] for given in seeds}) == 60


def test_labels_are_the_same_on_every_platform():
    digest = hashlib.sha256()
    for split in plan(Size()).values():
        for index in range(split.pictures):
            shown = split.assignment(index)
            digest.update(shown.attributes.tobytes() + shown.filename.encode())
    assert digest.hexdigest()[:16] == "d58afeaa9fd7c967"


def test_millions_of_pictures_need_no_list():
    splits = plan(Size(train=3_000_000, val=100, test=100))
    assert len(splits["train"].categories) == 20_000
    assert splits["train"].assignment(2_999_999).filename.startswith("train/2999999_")
    assert splits["train"].render(2_999_999)[:2] == b"\xff\xd8"


@pytest.mark.parametrize("name", ["", "small", "train10-val5-seed0", "train010-val5-test5-seed0"])
def test_sizes_that_are_none_are_refused(name):
    with pytest.raises(ValueError, match="expected one like train6000-val400-test1000-seed0"):
        Size.parse(name)


def test_empty_splits_are_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        Size.parse("train10-val0-test5-seed0")


def test_a_size_is_spelled_by_its_name():
    assert Size.parse("train10-val5-test7-seed3") == Size(10, 5, 7, 3)
    assert Size(10, 5, 7, 3).name == "train10-val5-test7-seed3"
