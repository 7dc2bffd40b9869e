"""Pictures of every kind become the same upright RGB pixels whoever opens them, or one error."""

import io
import struct
import time
import types
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from stand_ins import small_pa100k

from aima_jax.data import open_dataset
from aima_jax.data import pictures as module
from aima_jax.data.pictures import (
    FORMATS,
    MAX_PIXELS,
    RECORD_FORMATS,
    in_threads,
    is_picture_name,
    open_picture,
    read_pixels,
    resize,
)
from aima_jax.search.person_search import PersonSearch
from tfds_builders.prepare import prepare


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


@pytest.mark.parametrize(
    "size", [(128, 64), (39, 16), (200, 81), (384, 129), (385, 128), (39, 200), (700, 300)]
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_pixels_are_those_of_pillow_and_so_of_torchvision(size, file_format):
    data = encoded(smooth(*size), file_format)
    np.testing.assert_array_equal(read_pixels(data, (384, 128)), plain(data, 384, 128))


def triangle(inputs, outputs):
    """Weights of the bilinear filter, which is as wide as a pixel of the coarser grid."""
    scale = inputs / outputs
    centers = (np.arange(outputs) + 0.5) * scale
    distances = np.abs(np.arange(inputs) + 0.5 - centers[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - distances)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(128, 64), (39, 16), (200, 81), (384, 128), (383, 1), (700, 300)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_resizes_by_the_bilinear_filter_but_for_two_roundings(size, file_format):
    """Pillow rounds twice, after rows and after columns, by a half at most."""
    data = encoded(smooth(*size), file_format)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    rows, columns = triangle(pixels.shape[0], 384), triangle(pixels.shape[1], 128)
    exact = np.einsum("hr,rcx,wc->hwx", rows, pixels, columns, optimize=True)
    assert np.abs(read_pixels(data, (384, 128)) - exact).max() <= 1 + 1e-9


@pytest.mark.parametrize("size", [(128, 64), (500, 300)])
def test_writes_into_the_array_that_is_given(size):
    data = encoded(smooth(*size))
    batch = np.zeros((3, 384, 128, 3), np.uint8)
    read_pixels(data, (384, 128), out=batch[1])
    np.testing.assert_array_equal(batch[1], read_pixels(data, (384, 128)))
    assert not batch[[0, 2]].any()


def test_a_large_jpeg_is_reduced_by_its_decoder_to_nearly_the_same(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        module,
        "resize",
        lambda picture, *a, **k: (sizes.append(picture.size), resize(picture, *a, **k))[1],
    )
    data = encoded(smooth(2001, 1003), quality=95)
    image = read_pixels(data, (240, 120)).astype(float)
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
    image = read_pixels(encoded(picture, "PNG"), (6, 4))
    assert image.shape == (6, 4, 3) and image.dtype == np.uint8
    assert (image == expected).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_every_kind_of_jpeg_becomes_rgb(mode):
    data = encoded(smooth(20, 10).convert(mode), quality=95)
    for size in ((15, 8), (30, 20)):
        np.testing.assert_array_equal(read_pixels(data, size), plain(data, *size))


# What stores an upright picture so that EXIF's orientation has to turn it.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(picture, orientation, file_format, **options):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if STORED[orientation] is not None:
        picture = picture.transpose(STORED[orientation])
    return encoded(picture, file_format, exif=exif, **options)


@pytest.mark.parametrize("orientation", STORED)
def test_pictures_stand_as_their_exif_data_says(orientation):
    picture = smooth(30, 20)
    for file_format, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = turned(picture, orientation, file_format, **options)
        np.testing.assert_array_equal(open_picture(data), picture)
        np.testing.assert_array_equal(open_picture(Image.open(io.BytesIO(data))), picture)
        np.testing.assert_array_equal(read_pixels(data, (40, 15)), resize(picture, (40, 15)))
    data = turned(picture, orientation, "JPEG", quality=100, subsampling=0)
    np.testing.assert_allclose(open_picture(data), picture, atol=6)


@pytest.mark.parametrize("orientation", STORED)
def test_a_large_jpeg_is_turned_and_reduced(orientation, monkeypatch):
    """Its sides are no multiples of eight: the part that the decoder pads must stay outside."""
    sizes = []
    monkeypatch.setattr(
        module,
        "resize",
        lambda picture, *a, **k: (sizes.append(picture.size), resize(picture, *a, **k))[1],
    )
    data = turned(smooth(2001, 1003), orientation, "JPEG", quality=95)
    image = read_pixels(data, (240, 120)).astype(float)
    assert sizes == [(251, 501)]
    expected = resize(open_picture(data), (240, 120)).astype(float)
    assert np.abs(image - expected).mean() < 0.5
    assert np.abs(image - expected).max() < 8


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\0", b"Exif\0\0nonsense", b"Exif\0\0II"])
def test_damaged_exif_data_leaves_a_picture_as_it_is_stored(exif):
    data = encoded(smooth(20, 10), exif=exif)
    np.testing.assert_array_equal(read_pixels(data, (15, 8)), plain(data, 15, 8))


@pytest.mark.parametrize("file_format", FORMATS)
def test_records_hold_two_formats_and_folders_more(file_format):
    data = encoded(smooth(20, 10), file_format)
    np.testing.assert_array_equal(open_picture(data), Image.open(io.BytesIO(data)).convert("RGB"))
    if file_format not in RECORD_FORMATS:
        with pytest.raises(ValueError, match=r"^x: .*expected a JPEG or PNG picture"):
            open_picture(data, name="x", formats=RECORD_FORMATS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("more/a.JPEG", True),
        ("a.webp", True),
        ("a.Tif", True),
        ("a.gif", False),
        ("jpg", False),
        ("._a.jpg", False),
        ("Thumbs.db", False),
        ("@eaDir/a.jpg", False),
        ("__MACOSX/more/a.png", False),
    ],
)
def test_what_is_a_picture_by_its_name(name, expected):
    assert is_picture_name(name) == expected


def test_builder_training_and_search_open_a_picture_the_same_way(tmp_path):
    """Pictures that each way of opening could take for another: turned, large, grey, with alpha."""
    raw = small_pa100k(tmp_path / "raw", train=5, val=1, test=1)
    folder = raw / "PA-100K/release_data/release_data"
    pictures = [
        turned(smooth(60, 30), 6, "JPEG"),
        turned(smooth(2001, 1003), 8, "JPEG", quality=95),
        encoded(smooth(50, 20).convert("L")),
        encoded(Image.new("RGBA", (5, 7), (10, 200, 30, 0)), "PNG"),
        turned(smooth(60, 30), 3, "PNG"),
    ]
    paths = [folder / f"{number:06d}.jpg" for number in range(1, 6)]
    for path, data in zip(paths, pictures, strict=True):
        path.unlink()
        path.write_bytes(data)
    prepared = prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "data")
    split = open_dataset(prepared).split("train")
    trained = split.images(np.arange(5), (96, 48))
    search = types.SimpleNamespace(image_size=(96, 48))
    for pixels, path in zip(trained, paths, strict=True):
        np.testing.assert_array_equal(pixels, PersonSearch.pixels(search, path))
        np.testing.assert_array_equal(pixels, PersonSearch.pixels(search, str(path)))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gif", "huge"])
def test_builder_training_and_search_refuse_a_picture_with_one_message(damage, tmp_path):
    raw = small_pa100k(tmp_path / "raw")
    path = raw / "PA-100K/release_data/release_data/000004.jpg"
    path.unlink()
    path.write_bytes(
        {
            "cut": encoded(smooth(200, 100))[:-300],
            "empty": b"",
            "text": b"no picture",
            "gif": encoded(smooth(20, 10), "GIF"),
            "huge": png_of_size(2**13, 2**13),
        }[damage]
    )
    search = types.SimpleNamespace(image_size=(96, 48))
    messages = []
    for way in (
        lambda: prepare("pa100k", manual_dir=raw, data_dir=tmp_path / "data"),
        lambda: read_pixels(path.read_bytes(), (96, 48), name=str(path), formats=RECORD_FORMATS),
        lambda: PersonSearch.pixels(search, path),
    ):
        with pytest.raises(ValueError, match=r"000004\.jpg: cannot be decoded") as refused:
            way()
        messages.append(str(refused.value).split("; expected")[0])
    assert len(set(messages)) == 1


@pytest.mark.usefixtures("unchecked")
def test_arrays_and_pil_images_are_taken_as_they_are():
    picture = smooth(20, 10)
    for source in (picture, np.asarray(picture), picture.convert("RGBA")):
        np.testing.assert_array_equal(open_picture(source), picture)
    for wrong in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), None):
        with pytest.raises(ValueError, match=r"^image 3 is .*expected"):
            open_picture(wrong, name="image 3")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        open_picture("nowhere.jpg")


def test_threads_keep_the_order_and_stop_at_the_first_failure():
    def slow_square(number):
        time.sleep(0.001 * (number % 3))
        if number == 150:
            raise ValueError("150")
        return number**2

    results = in_threads(slow_square, range(10**9))
    for number in range(150):
        assert next(results) == number**2
    with pytest.raises(ValueError, match="150"):
        next(results)


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
        read_pixels(png_of_size(side, MAX_PIXELS // 2**12), (8, 4), name="bomb.png")


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
        read_pixels(data, (8, 4), name="a/7.jpg")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_every_truncation_is_refused(file_format):
    data = encoded(smooth(16, 8), file_format)
    for length in range(0, len(data) - 20, 7):
        with pytest.raises(ValueError, match=r"half: cannot be decoded"):
            open_picture(data[:length], name="half")


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
        image = read_pixels(bytes(data[:length]), (8, 4), name="x")
    except ValueError as error:
        assert str(error).startswith("x: ")
    else:
        assert image.shape == (8, 4, 3)
