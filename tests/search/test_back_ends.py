"""One contract for galleries in a folder and in Milvus."""

import importlib.util
import pathlib

import numpy as np
import pytest
from samples import make_model, save

import aima_jax
from aima_jax.search import Gallery, index_folder
from aima_jax.search.gallery import GalleryRows, Stamp

DIM = 64
MILVUS = pytest.mark.skipif(
    not importlib.util.find_spec("pymilvus"), reason="needs the extra milvus: .ci/extras milvus"
)


@pytest.fixture(params=["folder", pytest.param("milvus", marks=MILVUS)])
def place(request, tmp_path):
    path = tmp_path / "place"
    return f"milvus:{path}.db" if request.param == "milvus" else str(path)


def made(rng, names):
    features = rng.standard_normal((len(names), DIM)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    facts = [
        {"camera": n % 4, "time": n / 2, "place": ["hall", 'a "gate"'][n % 2]}
        for n in range(len(names))
    ]
    return GalleryRows(
        list(names), features, facts, [Stamp(n, 10**18 + n) for n in range(len(names))]
    )


def filled(place, rows):
    gallery = Gallery.create(place, model_id="m", dim=DIM, folder="/pictures", dtype="float32")
    gallery.write(rows)
    return gallery


def same_as_exact(gallery, rows, kept, where=""):
    queries = np.random.default_rng(9).standard_normal((3, DIM)).astype(np.float32)
    scores, keys = gallery.nearest(queries, 10, where)
    exact = queries @ rows.features[kept].T
    order = np.argsort(-exact, axis=1)[:, :10]
    names = np.array(rows.names)[kept][order]
    assert [gallery.rows(row).names for row in keys] == names.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(exact, order, axis=1), atol=1e-5)


def test_the_first_are_those_of_an_exact_search(place):
    rows = made(np.random.default_rng(0), [f'{n:03} "é.jpg' for n in range(300)])
    gallery = filled(place, rows)
    every = np.arange(300)
    for each in (gallery, Gallery(place)):
        same_as_exact(each, rows, every)
        same_as_exact(each, rows, every[np.isin(every % 4, (1, 2))], "camera in (1, 2)")
        kept = every[(every / 2 >= 100) & (every % 2 == 1)]
        same_as_exact(each, rows, kept, "time >= 100 and not place == 'hall'")
        same_as_exact(each, rows, every[:5], 'name < "005"')
        assert each.columns == ("name", "camera", "place", "time")
        assert (each.model_id, each.dim, len(each)) == ("m", DIM, 300)
        assert each.folder == pathlib.Path("/pictures")
    scores, keys = gallery.nearest(rows.features[:2], 500)
    assert scores.shape == keys.shape == (2, 300)
    assert gallery.nearest(rows.features[:2], 5, "camera > 7")[1].shape == (2, 0)


def test_rows_come_back_as_they_were_written(place):
    rows = made(np.random.default_rng(1), [f"{n}.jpg" for n in range(7)])
    gallery = filled(place, rows)
    known = gallery.known()
    assert {name: each.stamp for name, each in known.items()} == dict(
        zip(rows.names, rows.stamps, strict=True)
    )
    back = gallery.rows(known[name].key for name in reversed(rows.names))
    assert back.names == rows.names[::-1]
    assert back.facts == rows.facts[::-1] and back.stamps == rows.stamps[::-1]
    np.testing.assert_array_equal(back.features, rows.features[::-1])


def test_pictures_are_replaced_and_removed(place):
    rows = made(np.random.default_rng(2), [f"{n:02}.jpg" for n in range(30)])
    gallery = filled(place, rows)
    new = made(np.random.default_rng(3), ["03.jpg", "40.jpg"])
    gallery.write(new, gone=["00.jpg", "01.jpg"])
    kept = np.array([n for n in range(30) if n not in (0, 1, 3)])
    expected = GalleryRows(
        [rows.names[n] for n in kept] + new.names,
        np.concatenate([rows.features[kept], new.features]),
        [],
    )
    for each in (gallery, Gallery(place)):
        assert len(each) == 29
        same_as_exact(each, expected, np.arange(29))
        assert sorted(each.known()) == sorted(expected.names)


def test_what_is_wrong_is_told(place, search, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no gallery"):
        Gallery(place)
    gallery = filled(place, made(np.random.default_rng(4), ["a.jpg"]))
    with pytest.raises(ValueError, match="no column 'tim'"):
        gallery.nearest(np.ones((1, DIM)), 1, "tim > 1")
    with pytest.raises(ValueError, match="a text with a number"):
        gallery.nearest(np.ones((1, DIM)), 1, "place > 1")
    with pytest.raises(ValueError, match="k must be at least 1"):
        gallery.nearest(np.ones((1, DIM)), 0)
    with pytest.raises(ValueError, match="queries have shape"):
        gallery.nearest(np.ones((1, DIM - 1)), 1)
    with pytest.raises(ValueError, match="made by another model"):
        index_folder(search, folder, place)


def test_a_damaged_gallery_is_told_of(tmp_path):
    place = tmp_path / "gallery"
    filled(place, made(np.random.default_rng(5), [f"{n}.jpg" for n in range(9)]))
    for path in [path for path in place.rglob("*") if path.suffix in (".npy", ".json")]:
        whole = path.read_bytes()
        for content in (whole[:-3], whole[:-1] + bytes([whole[-1] ^ 1]), None):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            with pytest.raises((ValueError, FileNotFoundError), match=r"gallery"):
                Gallery(place)
        path.write_bytes(whole)
    assert len(Gallery(place)) == 9


def test_a_folder_is_indexed_into_it(place, search, folder, tmp_path):
    gallery, left_out = index_folder(search, folder, place, rows_of_a_part=2)
    names = ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png"]
    assert sorted(name for name, each in gallery.known().items() if not each.unreadable) == names
    assert len(left_out) == 1 and "broken.jpg" in left_out[0]
    (folder / "b.png").unlink()
    gallery, _ = index_folder(search, folder, place)
    expected = search.encode_images([folder / name for name in names if name != "b.png"])
    scores, keys = gallery.nearest(expected, 1)
    assert [gallery.rows(key).names[0] for key in keys] == [n for n in names if n != "b.png"]
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    other = aima_jax.load(save(tmp_path / "other", make_model(seed=1)))
    with pytest.raises(ValueError, match="made by another model"):
        index_folder(other, folder, place)
