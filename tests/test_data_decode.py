"""Pictures of every kind become uint8 RGB of one size, or one clear error."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aima_jax.data.decode import MAX_PIXELS, decode, resize


def smooth(height, width, seed=0):
    """A picture without fine detail, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture, file_format="JPEG", **options):
    data = io.BytesIO()
    picture.save(data, file_format, **options)
    return data.getvalue()


def plain(data, height, width):
    """What torchvision's Resize makes of a PIL picture."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def triangle(inputs, outputs):
    """Weights of the bilinear filter, which is as wide as a pixel of the coarser grid."""
    scale = inputs / outputs
    centers = (np.arange(outputs) + 0.5) * scale
    distances = np.abs(np.arange(inputs) + 0.5 - centers[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - distances)
    return weights / weights.sum(axis=1, keepdims=True)


def assert_filtered(data, height, width):
    """Either library rounds twice, after rows and after columns, by a half at most."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    rows, columns = triangle(pixels.shape[0], height), triangle(pixels.shape[1], width)
    exact = np.einsum("hr,rcx,wc->hwx", rows, pixels, columns, optimize=True)
    assert np.abs(decode(data, (height, width), name="x") - exact).max() <= 1 + 1e-9


@pytest.mark.parametrize("size", [(128, 64), (39, 16), (200, 81), (384, 128), (383, 1), (700, 300)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_resizes_by_the_bilinear_filter_but_for_two_roundings(size, file_format):
    assert_filtered(encoded(smooth(*size), file_format), 384, 128)


@pytest.mark.parametrize("size", [(384, 129), (385, 128), (39, 200), (600, 40)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_what_shrinks_equals_pillow_bit_for_bit(size, file_format):
    data = encoded(smooth(*size), file_format)
    np.testing.assert_array_equal(decode(data, (384, 128), name="x"), plain(data, 384, 128))


@pytest.mark.parametrize("size", [(128, 64), (500, 300)])
def test_writes_into_the_array_that_is_given(size):
    data = encoded(smooth(*size))
    batch = np.zeros((3, 384, 128, 3), np.uint8)
    decode(data, (384, 128), name="x", out=batch[1])
    np.testing.assert_array_equal(batch[1], decode(data, (384, 128), name="x"))
    assert not batch[[0, 2]].any()


def test_a_large_jpeg_is_reduced_by_its_decoder_to_nearly_the_same(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "aima_jax.data.decode.resize",
        lambda picture, *a, **k: (sizes.append(picture.size), resize(picture, *a, **k))[1],
    )
    data = encoded(smooth(2001, 1003), quality=95)
    image = decode(data, (240, 120), name="x").astype(float)
    assert sizes == [(251, 501)]
    assert np.abs(image - plain(data, 240, 120)).mean() < 0.5
    assert np.abs(image - plain(data, 240, 120)).max() < 8


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (5, 7), 90), (90, 90, 90)),
        (Image.new("LA", (5, 7), (90, 20)), (90, 90, 90)),
        (Image.new("RGBA", (5, 7), (10, 200, 30, 0)), (10, 200, 30)),
        (Image.new("RGB", (5, 7), (10, 200, 30)).quantize(4), (10, 200, 30)),
        (Image.new("1", (5, 7), 1), (255, 255, 255)),
        (Image.fromarray(np.full((7, 5), 200 * 256 + 17, np.uint16)), (200, 200, 200)),
    ],
    ids=["grey", "grey-alpha", "alpha", "palette", "one-bit", "16-bit"],
)
def test_every_kind_of_png_becomes_rgb(picture, expected):
    image = decode(encoded(picture, "PNG"), (6, 4), name="x")
    assert image.shape == (6, 4, 3) and image.dtype == np.uint8
    assert (image == expected).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_every_kind_of_jpeg_becomes_rgb(mode):
    data = encoded(smooth(20, 10).convert(mode), quality=95)
    np.testing.assert_array_equal(decode(data, (15, 8), name="x"), plain(data, 15, 8))
    assert_filtered(data, 30, 20)


def png_of_size(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [2**12 + 1, 2**13, 2**16])
def test_too_many_pixels_are_refused_before_they_are_decoded(side):
    with pytest.raises(ValueError, match=r"^bomb\.png: .*pixels"):
        decode(png_of_size(side, MAX_PIXELS // 2**12), (8, 4), name="bomb.png")


DAMAGED = {
    "empty": b"",
    "text": b"GIF89a is no picture here",
    "gif": encoded(smooth(20, 10), "GIF"),
    "cut jpeg": encoded(smooth(200, 100))[:-300],
    "cut png": encoded(smooth(200, 100), "PNG")[:-300],
    "header only": encoded(smooth(20, 10))[:200],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_names_the_picture(data):
    with pytest.raises(ValueError, match=r"^a/7\.jpg: cannot be decoded"):
        decode(data, (8, 4), name="a/7.jpg")


@settings(max_examples=300, deadline=None)
@given(
    original=st.sampled_from(
        [
            encoded(smooth(20, 10)),
            encoded(smooth(20, 10), progressive=True),
            encoded(smooth(20, 10), "PNG"),
            encoded(smooth(20, 10).quantize(4), "PNG"),
        ]
    ),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    length=st.integers(0, 2000),
)
def test_changed_bytes_give_a_picture_or_a_value_error(original, changes, length):
    data = bytearray(original)
    for position, value in changes:
        data[position % len(data)] = value
    try:
        image = decode(bytes(data[:length]), (8, 4), name="x")
    except ValueError as error:
        assert str(error).startswith("x: ")
    else:
        assert image.shape == (8, 4, 3)
