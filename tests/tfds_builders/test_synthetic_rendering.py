"""Rendered pictures: reproducible, never twice the same, and every attribute is to be seen."""

import io
import itertools

import numpy as np
import PIL.Image
import pytest

from tfds_builders.synthetic_pedestrians.body import Look, Pose
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Frame
from tfds_builders.synthetic_pedestrians.figure import draw_person
from tfds_builders.synthetic_pedestrians.rendering import render
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema
from tfds_builders.synthetic_pedestrians.schema import VIEWS

HEIGHT = 128

PERSON = {
    "gender": "female",
    "age": "adult",
    "hair": "short",
    "hat": False,
    "glasses": False,
    "view": "front",
    "sleeve": "long",
    "upper_color": "blue",
    "upper_pattern": "none",
    "lower_type": "pants",
    "lower_length": "long",
    "lower_color": "gray",
    "bag": "none",
    "boots": False,
}
# Between which heights of the body the pixels lie that an attribute of this group changes.
BANDS = {
    "hair": (0.55, 1.05),
    "hat": (0.8, 1.1),
    "glasses": (0.85, 1.0),
    "sleeve": (0.35, 0.85),
    "upper_color": (0.35, 0.9),
    "upper_pattern": (0.35, 0.9),
    "lower_type": (0.0, 0.6),
    "lower_length": (0.0, 0.6),
    "lower_color": (0.0, 0.6),
    "bag": (0.25, 0.95),
    "boots": (-0.05, 0.35),
}


def picture(description, number=0, *, identity=0, camera=0):
    data = render(description, picture=(1, number), identity=(2, identity), camera=(3, camera))
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


def figure(description, seed):
    """A person on an empty canvas, whose feet are at 0.1 and whose head is at 0.9 of its height."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(np.full((3, HEIGHT, HEIGHT // 2), 0.6, np.float32))
    frame = Frame(complex(HEIGHT / 4, 0.9 * HEIGHT), complex(0.8 * HEIGHT))
    draw_person(canvas, frame, description, Look.draw(rng), Pose.draw(rng))
    return canvas.pixels


def changes():
    """Each group with each pair of neighbouring answers, in each view where they differ."""
    for view in VIEWS:
        for group in synthetic_schema.groups:
            answers = group.answers or (False, True)
            if group.name == "view" or (group.name == "glasses" and view == "back"):
                continue
            for before, after in itertools.pairwise(answers):
                yield pytest.param(view, group.name, before, after, id=f"{view}-{before}-{after}")


@pytest.mark.parametrize(("view", "group", "before", "after"), list(changes()))
def test_an_attribute_changes_what_is_seen_and_nothing_else(view, group, before, after):
    for seed in range(4):
        person = PERSON | {"view": view}
        one, other = (figure(person | {group: answer}, seed) for answer in (before, after))
        changed = np.abs(one - other).max(0) > 0.1
        assert changed.sum() >= 12
        low, high = BANDS.get(group, (-0.1, 1.1))
        rows = np.arange(HEIGHT) + 0.5
        height = (0.9 * HEIGHT - rows) / (0.8 * HEIGHT)
        inside = changed[(height >= low) & (height <= high)].sum()
        assert inside >= 0.95 * changed.sum()


@pytest.mark.parametrize(("one", "other"), [("front", "side"), ("side", "back"), ("front", "back")])
def test_views_differ(one, other):
    for seed in range(4):
        difference = figure(PERSON | {"view": one}, seed) - figure(PERSON | {"view": other}, seed)
        assert (np.abs(difference).max(0) > 0.1).sum() > 60


def test_the_same_seeds_give_the_same_picture():
    np.testing.assert_array_equal(picture(PERSON), picture(PERSON))


@pytest.mark.parametrize("changed", ["number", "identity", "camera"])
def test_pictures_of_one_description_differ(changed):
    seeds = {"number": 5, "identity": 5, "camera": 5}
    one, other = picture(PERSON, **seeds), picture(PERSON, **seeds | {changed: 6})
    if changed == "number":
        small = [PIL.Image.fromarray(image).resize((24, 48)) for image in (one, other)]
        difference = np.abs(np.subtract(*np.asarray(small, np.int16)))
        assert (difference > 20).mean() > 0.25
    else:
        assert one.shape == other.shape
        assert (one != other).mean() > 0.05


def test_sizes_vary():
    shapes = [picture(PERSON, number).shape for number in range(40)]
    heights, widths = np.array(shapes)[:, :2].T
    assert heights.min() >= 96
    assert heights.max() <= 256
    assert heights.max() - heights.min() > 80
    assert len(set(heights)) > 25
    assert ((widths / heights > 0.38) & (widths / heights < 0.6)).all()


def test_a_picture_is_neither_flat_nor_saturated():
    for number in range(12):
        image = picture(PERSON, number).astype(np.float32)
        assert image.std() > 12
        assert ((image < 3) | (image > 252)).mean() < 0.6
