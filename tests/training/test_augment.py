"""Augmentation: exact flips and crops, the rectangle that is erased, and rows apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aima_jax.training.augment import augment

HEIGHT, WIDTH = 24, 12
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
PIXELS = {"mean": tuple(MEAN), "std": tuple(STD)}
NOTHING = PIXELS | {"flip": 0.0, "pad": 0, "erase": 0.0, "erase_area": (0.02, 0.4)}
WHOLE = PIXELS | {"flip": 0.5, "pad": 3, "erase": 0.5, "erase_area": (0.02, 0.4)}

jitted = jax.jit(augment, static_argnames=tuple(NOTHING))


def pictures(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, HEIGHT, WIDTH, 3), np.uint8)


def normalized(images):
    return (images / 255 - MEAN) / STD


def close(a, b):
    return np.abs(a - b).max(axis=(-3, -2, -1)) < 1e-5


def test_pixels_are_normalised_by_the_statistics_given_and_erased_with_their_mean():
    images, other = pictures(3), {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.125)}
    out = np.asarray(jitted(jax.random.key(0), images, **NOTHING | other))
    mean, std = (np.array(other[name]) for name in ("mean", "std"))
    assert np.abs(out - (images / 255 - mean) / std).max() < 1e-5
    out = np.asarray(jitted(jax.random.key(0), images, **NOTHING | other | {"erase": 1.0}))
    assert (np.abs(out - mean) < 1e-6).all(-1).any(axis=(1, 2)).all()


def erased(images, **options):
    """bool[batch, height, width] where the fill value stands."""
    out = np.asarray(jitted(jax.random.key(1), images, **{**NOTHING, "erase": 1.0, **options}))
    return (np.abs(out - MEAN) < 1e-6).all(-1)


def test_without_probabilities_it_only_normalises():
    images = pictures(3)
    out = jitted(jax.random.key(0), images, **NOTHING)
    assert out.dtype == jnp.float32 and out.shape == images.shape
    assert close(np.asarray(out), normalized(images)).all()


def test_flip_mirrors_left_and_right_for_its_share_of_the_rows():
    images = pictures(2000)
    out = np.asarray(jitted(jax.random.key(0), images, **{**NOTHING, "flip": 0.3}))
    mirrored, kept = (close(out, normalized(x)) for x in (images[:, :, ::-1], images))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.mean() - 0.3) < 0.05


def test_crop_shifts_by_every_offset_with_black_coming_in():
    pad, images = 2, pictures(500)
    out = np.asarray(jitted(jax.random.key(0), images, **{**NOTHING, "pad": pad}))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    found = np.zeros(len(images), int)
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[:, top : top + HEIGHT, left : left + WIDTH]
            here = close(out, normalized(crop))
            assert 5 <= here.sum() <= 45  # 20 expected
            found += here
    assert (found == 1).all()


def test_flip_comes_before_the_crop_and_both_before_erasing():
    """Rows that are both mirrored and cropped have black where the mirrored picture ends."""
    pad, images = 2, pictures(200)
    keys = jax.random.key(5)
    out = np.asarray(jitted(keys, images, **{**NOTHING, "flip": 1.0, "pad": pad}))
    plain = np.asarray(jitted(keys, images[:, :, ::-1], **{**NOTHING, "flip": 0.0, "pad": pad}))
    np.testing.assert_array_equal(out, plain)
    whole = np.asarray(jitted(keys, images, **{**NOTHING, "flip": 1.0, "pad": pad, "erase": 1.0}))
    filled = (np.abs(whole - MEAN) < 1e-6).all(-1)
    np.testing.assert_array_equal(whole[~filled], out[~filled])


def test_erasing_takes_a_rectangle_of_the_asked_area_and_shape():
    low, high = 0.1, 0.4
    where = erased(pictures(2000), erase_area=(low, high))
    rows, columns = where.any(2), where.any(1)
    np.testing.assert_array_equal(where, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):  # without gaps
        assert (np.abs(np.diff(side, axis=1, prepend=False, append=False)).sum(1) <= 2).all()
    heights, widths = rows.sum(1), columns.sum(1)
    hit = heights > 0
    assert hit.mean() > 0.99
    heights, widths = heights[hit], widths[hit]
    # Sides are rounded to whole pixels.
    assert ((heights - 0.5) * (widths - 0.5) <= high * HEIGHT * WIDTH).all()
    assert ((heights + 0.5) * (widths + 0.5) >= low * HEIGHT * WIDTH).all()
    assert ((heights - 0.5) / (widths + 0.5) <= 3.3).all()
    assert ((heights + 0.5) / (widths - 0.5) >= 0.3).all()
    assert (heights < HEIGHT).all() and (widths < WIDTH).all()
    assert heights.max() > 2 * widths.min() and widths.max() > heights.min()
    everywhere = where.mean(0)
    assert everywhere.min() > 0  # places reach into every corner


def test_erasing_has_its_probability():
    hit = erased(pictures(2000), erase=0.3).any(axis=(1, 2))
    assert abs(hit.mean() - 0.3) < 0.05


def test_flip_crop_and_erasing_are_drawn_apart():
    """Each is as frequent among pictures with the others as among those without."""
    images, pad = pictures(2000), 2
    images[:, :, 0], images[:, :, -1] = 255, 128  # what tells a mirrored picture, whatever is left
    options = {**NOTHING, "flip": 0.5, "pad": pad, "erase": 0.5}
    out = np.asarray(jitted(jax.random.key(3), images, **options))
    hit = (np.abs(out - MEAN) < 1e-6).all(-1)
    facts = {"erased": hit.any(axis=(1, 2))}
    matches = {}
    for mirrored, source in ((False, images), (True, images[:, :, ::-1])):
        padded = normalized(np.pad(source, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
        for top in range(2 * pad + 1):
            for left in range(2 * pad + 1):
                crop = padded[:, top : top + HEIGHT, left : left + WIDTH]
                same = (np.abs(out - crop).max(-1) < 1e-5) | hit
                matches[mirrored, top, left] = same.all(axis=(1, 2))
    assert (sum(matches.values()) == 1).all()
    facts["mirrored"] = sum(same for (mirrored, _, _), same in matches.items() if mirrored) > 0
    facts["up"] = sum(same for (_, top, _), same in matches.items() if top < pad) > 0
    facts["left"] = sum(same for (_, _, left), same in matches.items() if left < pad) > 0
    correlation = np.corrcoef(np.array(list(facts.values()), float))
    assert np.abs(correlation - np.eye(len(facts))).max() < 4.5 / np.sqrt(len(images))


def test_area_of_erasing_is_uniform():
    area = erased(pictures(2000), erase_area=(0.1, 0.2)).mean(axis=(1, 2))
    assert abs(area.mean() - 0.15) < 0.01
    assert abs((area < 0.15).mean() - 0.5) < 0.06


def test_row_depends_on_key_and_its_number_alone():
    images = pictures(32)
    everything = np.asarray(jitted(jax.random.key(0), images, **WHOLE))
    others = images.copy()
    others[5:] = 7
    fewer = jitted(jax.random.key(0), others[:9], **WHOLE)
    np.testing.assert_array_equal(everything[:5], fewer[:5])
    assert (everything != np.asarray(jitted(jax.random.key(1), images, **WHOLE))).any()
    same = np.asarray(jitted(jax.random.key(0), np.repeat(images[:1], 32, axis=0), **WHOLE))
    assert len(np.unique(same.reshape(32, -1), axis=0)) > 25


def test_rows_split_over_devices_are_augmented_the_same():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    images = pictures(16)
    split = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    function = jax.jit(functools.partial(augment, **WHOLE))
    np.testing.assert_array_equal(
        function(jax.random.key(0), split), function(jax.random.key(0), images)
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8)]
)
def test_wrong_pictures_are_named(images):
    with pytest.raises(ValueError, match=r"expected uint8\[batch, height, width, 3\]"):
        augment(jax.random.key(0), images, **NOTHING)
