"""Search of one's own pictures: encoding, ranking, the gallery on disk, the command line."""

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

import aima_jax
from aima_jax.attributes import synthetic_schema
from aima_jax.checkpoint import Description
from aima_jax.data.decode import MAX_PIXELS, decode
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig, TextConfig, ViTConfig
from aima_jax.parameters import flatten
from aima_jax.pixels import normalize
from aima_jax.search import IndexedFolder, PersonSearch, index_folder
from aima_jax.search.__main__ import main
from aima_jax.text import tokenize
from aima_jax.training.saving import Saver
from aima_jax.training.step import TrainState

ROOT = pathlib.Path(aima_jax.__file__).parents[1]
SIZE = (32, 16)
ATTRIBUTES = {"gender": "female", "upper_color": "red", "bag": "backpack"}


@pytest.fixture(scope="module")
def model():
    towers = {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
    clip = CLIPConfig(
        image_size=SIZE,
        dim=64,
        vision=ViTConfig(**towers, patch_size=8, patch_stride=8),
        text=TextConfig(**towers),
    )
    return AIMA(AIMAConfig(clip, num_categories=3, fusion_depth=1), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, model):
    return save(tmp_path_factory.mktemp("run"), model)


@pytest.fixture(scope="module")
def search(workdir):
    return aima_jax.load(workdir)


@pytest.fixture
def folder(tmp_path):
    """Five pictures, one of them in a folder of its own, and two files that are no pictures."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.jpg", "c.JPG", "more/a.png", "d.png"]):
        picture(seed).save(folder / name)
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "Thumbs.db").write_bytes(b"no picture, and not taken for one")
    return folder


def save(workdir, model):
    """A workdir with one checkpoint of the model."""
    description = Description(
        model=model.config.to_dict(),
        schema=synthetic_schema.to_dict(),
        template="sentence",
        config={"image_size": SIZE, "mesh": {"min_shard_elements": 2**16}},
    )
    saver = Saver(workdir, description)
    saver.save(7, TrainState.create(flatten(model), optax.sgd(0.1), frozenset(flatten(model))))
    saver.close()
    return workdir


def picture(seed, size=(60, 30)):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (4, 2, 3), np.uint8)
    return Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def test_image_features_are_those_of_the_model(search, model):
    pictures = [picture(seed, size) for seed, size in enumerate([(60, 30), (128, 64), (20, 41)])]
    pixels = np.stack([decode(png(each), SIZE, name="") for each in pictures])
    expected = unit(np.asarray(model.encode_image(normalize(pixels))[0]))
    features = search.encode_images(pictures)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_text_features_are_those_of_the_model(search, model):
    texts = ["a woman", "a man with a very long coat", ""]
    expected = unit(np.asarray(model.encode_text(tokenize(texts))[0]))
    np.testing.assert_allclose(search.encode_text(texts), expected, atol=1e-5)


def test_attributes_are_encoded_as_their_sentence(search):
    sentence = search.template.render(ATTRIBUTES).text
    assert "woman" in sentence and "red" in sentence and "backpack" in sentence
    encoded = search.encode_attributes([ATTRIBUTES, {"hat": True}])
    assert np.array_equal(encoded[0], search.encode_text([sentence])[0])
    assert not np.allclose(encoded[0], encoded[1], atol=1e-3)


def test_paths_pil_images_and_arrays_give_the_same_features(search, tmp_path):
    image = picture(1)
    image.save(tmp_path / "1.png")
    ways = [image, np.asarray(image), tmp_path / "1.png", str(tmp_path / "1.png")]
    features = search.encode_images([*ways, image.convert("RGBA")])
    assert np.array_equal(features, np.broadcast_to(features[0], features.shape))


def test_features_do_not_depend_on_the_batch(search):
    pictures = [picture(seed) for seed in range(19)]
    alone = np.concatenate([search.encode_images([each]) for each in pictures])
    np.testing.assert_allclose(search.encode_images(pictures), alone, atol=1e-6)
    assert search.encode_images([]).shape == (0, search.dim)


def test_pictures_stand_as_their_exif_data_says(search, tmp_path):
    upright = picture(2, (60, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    features = search.encode_images([upright, tmp_path / "turned.png"])
    assert np.array_equal(features[0], features[1])


def test_rank_is_by_cosine_similarity(search):
    features = search.encode_images([picture(seed) for seed in range(30)])
    similarity = features.astype(float) @ search.encode_attributes([ATTRIBUTES])[0].astype(float)
    ranked = search.rank(ATTRIBUTES, features)
    assert [index for index, _ in ranked] == np.argsort(-similarity)[:10].tolist()
    np.testing.assert_allclose(
        [score for _, score in ranked], np.sort(-similarity)[:10] * -1, atol=1e-6
    )
    assert all(type(index) is int and type(score) is float for index, score in ranked)
    assert len(search.rank(ATTRIBUTES, features, k=100)) == 30
    assert search.rank(ATTRIBUTES, features, k=3) == ranked[:3]


def test_a_picture_finds_itself(search):
    features = search.encode_images([picture(seed) for seed in range(30)])
    (index, score), *_ = search.rank(3 * features[17], features)
    assert index == 17
    assert score == pytest.approx(1)


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("gender=female, upper_color=red,bag=backpack", ATTRIBUTES),
        ("hat", {"hat": True}),
        ("hat,boots", {"hat": True, "boots": True}),
        ("hat=no,gender=male", {"hat": False, "gender": "male"}),
    ],
)
def test_a_text_of_attributes_is_taken_as_attributes(search, query, meant):
    assert search.sentence(query) == search.sentence(meant) == search.template.render(meant).text
    features = search.encode_images([picture(seed) for seed in range(5)])
    assert search.rank(query, features) == search.rank(meant, features)


@pytest.mark.parametrize("query", ["a red hat", "woman", "hat and boots", "a man, a hat", " hats "])
def test_any_other_text_is_taken_as_words(search, query):
    assert search.sentence(query) == query.strip()
    features = search.encode_images([picture(seed) for seed in range(5)])
    as_words = search.rank(search.encode_text([query])[0], features)
    assert [index for index, _ in search.rank(query, features)] == [index for index, _ in as_words]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("gender=femal", "female"),
        ("gendre=female", "gender"),
        ({"upper_color": "rad"}, "red"),
        ({"upper": "red"}, "upper_color"),
        ("", "empty"),
        (" , ", "empty"),
        ("word " * 100, "77"),
        (np.zeros(3), "dict of attributes"),
        (7, "dict of attributes"),
    ],
)
def test_a_wrong_query_gets_a_message_for_people(search, query, message):
    with pytest.raises(ValueError, match=message):
        search.rank(query, np.eye(search.dim, dtype=np.float32))


@pytest.mark.parametrize(
    ("features", "k", "message"),
    [
        (np.zeros((0, 64), np.float32), 10, "one image or more"),
        (np.zeros((4, 63), np.float32), 10, "images, 64"),
        (np.zeros(64, np.float32), 10, "images, 64"),
        (np.eye(64, dtype=np.float32), 0, "k must be at least 1"),
    ],
)
def test_wrong_features_get_a_message_for_people(search, features, k, message):
    with pytest.raises(ValueError, match=message):
        search.rank("hat", features, k)


def test_one_thing_where_a_list_is_expected_is_refused(search):
    with pytest.raises(ValueError, match="list of pictures"):
        search.encode_images("picture.jpg")
    with pytest.raises(ValueError, match="list of dicts"):
        search.encode_attributes(ATTRIBUTES)
    with pytest.raises(ValueError, match="list of texts"):
        search.encode_text("a woman")


def test_wrong_pictures_are_named(search, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(png(picture(0))[:-200])
    (tmp_path / "huge.png").write_bytes(png(Image.new("1", (1 << 13, MAX_PIXELS // (1 << 13) + 1))))
    for name in ("text.png", "cut.png", "huge.png", ""):
        with pytest.raises(ValueError, match=name or str(tmp_path)):
            search.encode_images([picture(0), tmp_path / name])
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        search.encode_images([tmp_path / "missing.png"])
    for wrong in (
        np.zeros((8, 8, 3)),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        None,
    ):
        with pytest.raises(ValueError, match=r"image 1 .*expected"):
            search.encode_images([picture(0), wrong])


def test_show_draws_the_best_first(search):
    pictures = [Image.new("RGB", (30, 60), (0, 0, 20 * place)) for place in range(12)]
    drawn = np.asarray(search.show(ATTRIBUTES, pictures, k=4))
    ranked = search.rank(ATTRIBUTES, search.encode_images(pictures), k=4)
    places = []
    for index, _ in ranked:
        found = np.argwhere((drawn == (0, 0, 20 * index)).all(axis=-1))
        assert len(found) > 1000
        places.append(found.min(axis=0)[1])
    assert places == sorted(places)


def test_a_folder_is_searched_and_what_cannot_be_read_is_reported(search, folder):
    gallery, problems = index_folder(search, folder)
    assert gallery.names.tolist() == ["a.jpg", "b.png", "c.JPG", "d.png", "more/a.png"]
    assert np.array_equal(
        gallery.features, search.encode_images([folder / name for name in gallery.names])
    )
    assert len(problems) == 1
    assert "broken.jpg" in problems[0]


def encoded_by(search, monkeypatch):
    """Counts the pictures that are encoded from now on."""
    counted = []
    encode = search.encode_pixels

    def counting(pixels):
        for features in encode(pixels):
            counted.append(features)
            yield features

    monkeypatch.setattr(search, "encode_pixels", counting)
    return counted


def test_an_index_saves_the_work_for_pictures_that_have_not_changed(
    search, folder, tmp_path, monkeypatch
):
    index = tmp_path / "index.features"
    first, _ = index_folder(search, folder, index=index)
    counted = encoded_by(search, monkeypatch)
    second, problems = index_folder(search, folder, index=index)
    assert not counted
    assert len(problems) == 1
    assert np.array_equal(first.features, second.features)
    assert first.names.tolist() == second.names.tolist()

    picture(10).save(folder / "b.png")
    picture(11).save(folder / "new.png")
    (folder / "a.jpg").unlink()
    third, _ = index_folder(search, folder, index=index)
    assert len(counted) == 2
    assert third.names.tolist() == ["b.png", "c.JPG", "d.png", "more/a.png", "new.png"]
    np.testing.assert_allclose(
        third.features, search.encode_images([folder / name for name in third.names]), atol=1e-6
    )
    kept = IndexedFolder.read(index)
    assert np.array_equal(kept.features, third.features)
    assert kept.names.tolist() == third.names.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.features", "pictures"]


def test_an_index_of_another_model_is_made_anew(search, folder, tmp_path, model):
    index_folder(search, folder, index=tmp_path / "index.npz")
    other_model = AIMA(model.config, rngs=nnx.Rngs(1))
    other = aima_jax.load(save(tmp_path / "other", other_model))
    gallery, _ = index_folder(other, folder, index=tmp_path / "index.npz")
    expected = other.encode_images([folder / name for name in gallery.names])
    np.testing.assert_allclose(gallery.features, expected, atol=1e-6)
    assert IndexedFolder.read(tmp_path / "index.npz").model == gallery.model


def test_what_was_encoded_before_an_interruption_is_kept(search, folder, tmp_path, monkeypatch):
    encode = search.encode_pixels

    def interrupted(pixels):
        for count, features in enumerate(encode(pixels)):
            if count == 3:
                raise KeyboardInterrupt
            yield features

    monkeypatch.setattr(search, "encode_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index_folder(search, folder, index=tmp_path / "index.npz")
    assert IndexedFolder.read(tmp_path / "index.npz").names.tolist() == ["a.jpg", "b.png", "c.JPG"]


def test_a_file_that_is_no_index_is_refused_and_left_alone(search, folder, tmp_path):
    index_folder(search, folder, index=tmp_path / "index.npz")
    whole = (tmp_path / "index.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    pickled = io.BytesIO()
    np.savez(pickled, model="", names=np.array([{}]), stamps=np.zeros((1, 2)), features=np.eye(1))
    wrong_shape = io.BytesIO()
    np.savez(wrong_shape, model="", names=["a"], stamps=np.zeros((2, 2)), features=np.eye(1))
    array = io.BytesIO()
    np.save(array, np.eye(2))
    for content in (
        b"",
        b"text",
        whole[:-50],
        whole[: len(whole) // 3],
        bytes(flipped),
        pickled.getvalue(),
        wrong_shape.getvalue(),
        array.getvalue(),
    ):
        path = tmp_path / "wrong.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.npz is no index"):
            index_folder(search, folder, index=path)
        assert path.read_bytes() == content


def test_the_command_line_prints_and_draws_what_it_found(workdir, folder, tmp_path, capsys):
    out = tmp_path / "ranking.png"
    common = ["--workdir", str(workdir), "--images", str(folder), "--k", "3"]
    assert main(["gender=female,upper_color=red", *common, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    search = PersonSearch.load(workdir)
    gallery, _ = index_folder(search, folder)
    ranked = search.rank({"gender": "female", "upper_color": "red"}, gallery.features, 3)
    assert "A woman wears a red top." in printed.out
    lines = printed.out.splitlines()
    for place, (index, score) in enumerate(ranked, start=1):
        assert f"{place:4}  {score:z6.3f}  {gallery.names[index]}" in lines
    assert "broken.jpg" in printed.err
    with Image.open(out) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": "gendre=female"}, "did you mean 'gender'"),
        ({"--images": "missing"}, "no folder"),
        ({"--images": "empty"}, "no picture"),
        ({"--images": "unreadable"}, "no readable picture"),
        ({"--workdir": "missing"}, "no sound checkpoint"),
        ({"--k": "0"}, "1 or more"),
        ({"--out": "missing/ranking.png"}, "no folder missing"),
        ({"--index": "missing/index.npz"}, "no folder missing"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    workdir, folder, tmp_path, monkeypatch, capsys, changes, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    options = {"query": "hat", "--workdir": str(workdir), "--images": str(folder)} | changes
    query = options.pop("query")
    assert main([query, *(text for pair in options.items() for text in pair)]) == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert "Traceback" not in error


def test_importing_parses_no_flags_and_touches_no_device():
    code = """
import sys
import aima_jax
assert aima_jax.__version__ and callable(aima_jax.load)
assert "jax" not in sys.modules
import aima_jax.search
from absl import flags
from jax._src import xla_bridge
assert not flags.FLAGS.is_parsed()
assert not xla_bridge.backends_are_initialized()
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_notebook_runs(workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "synthetic").symlink_to(workdir)
    (tmp_path / "photos").mkdir()
    for seed in range(12):
        picture(seed).save(tmp_path / "photos" / f"{seed}.jpg")
    notebook = json.loads((ROOT / "notebooks" / "search.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)  # they would hold pictures
    cells = [cell for cell in code if "setup" not in cell["metadata"].get("tags", [])]
    assert len(cells) >= 5
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["features"].shape == (12, 64)
    assert (tmp_path / "photos.npz").exists()
