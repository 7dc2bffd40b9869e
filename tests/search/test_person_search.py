"""Pictures and queries in hand: encoding, ranking, showing."""

import numpy as np
import pytest
from PIL import Image
from samples import CATEGORIES, PIXEL_MEAN, PIXEL_STD, SIZE, picture, png, save

from aima_jax.data.pictures import MAX_PIXELS, read_pixels
from aima_jax.parameters import bind, flatten
from aima_jax.search import PersonSearch
from aima_jax.text import tokenize

ATTRIBUTES = {"gender": "female", "upper_color": "red", "bag": "backpack"}


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def test_image_features_are_those_of_the_model(search, model):
    pictures = [picture(seed, size) for seed, size in enumerate([(60, 30), (128, 64), (20, 41)])]
    pixels = np.stack([read_pixels(png(each), SIZE) for each in pictures])
    normal = ((pixels / 255 - PIXEL_MEAN) / PIXEL_STD).astype(np.float32)
    expected = unit(np.asarray(model.encode_image(normal)[0]))
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


def test_words_and_vectors_are_ranked_by_cosine_similarity(search):
    features = search.encode_images([picture(seed) for seed in range(30)])
    text = search.encode_text(["a red coat"])[0]
    similarity = features.astype(float) @ text.astype(float)
    for query in ("a red coat", text):
        ranked = search.rank(query, features)
        assert [index for index, _ in ranked] == np.argsort(-similarity)[:10].tolist()
        np.testing.assert_allclose(
            [score for _, score in ranked], np.sort(-similarity)[:10] * -1, atol=1e-6
        )
        assert all(type(index) is int and type(score) is float for index, score in ranked)
        assert len(search.rank(query, features, k=100)) == 30
        assert search.rank(query, features, k=3) == ranked[:3]


def by_hand(search, features, said):
    """The share of the agreeing categories in a softmax over all, by plain loops in float64."""
    sentences = [search.template.render(bits).text for bits in CATEGORIES]
    bank = search.encode_text(sentences).astype(np.float64)
    found = []
    for image in features.astype(np.float64):
        masses = [np.exp(image @ sentence / 0.05) for sentence in bank]
        agree = [
            all(bits[search.schema.names.index(bit)] == value for bit, value in said.items())
            for bits in CATEGORIES
        ]
        found.append(sum(m for m, a in zip(masses, agree, strict=True) if a) / sum(masses))
    return np.array(found)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("gender=female", {"gender=female": 1}),
        ("gender!=female", {"gender=female": 0}),
        ({"gender": "female", "upper_color": "red"}, {"gender=female": 1, "upper_color=red": 1}),
        ("upper_color!=red, no hat", {"upper_color=red": 0, "hat": 0}),
    ],
)
def test_attributes_are_ranked_by_their_probability(search, query, said):
    features = search.encode_images([picture(seed) for seed in range(30)])
    expected = by_hand(search, features, said)
    ranked = search.rank(query, features, k=30)
    assert [index for index, _ in ranked] == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(
        [score for _, score in ranked], -np.sort(-expected), rtol=1e-5, atol=1e-9
    )
    assert all(type(index) is int and 0 < score < 1 for index, score in ranked)
    assert search.rank(query, features, k=3) == ranked[:3]


def test_a_description_of_nobody_in_training_is_asked_by_its_own_sentences(search):
    features = search.encode_images([picture(seed) for seed in range(10)])
    ranked = search.rank(ATTRIBUTES, features)  # nobody in training has a backpack
    assert sorted(index for index, _ in ranked) == list(range(10))
    assert all(0 < score < 1 for _, score in ranked)


def test_what_a_picture_shows_adds_up(search):
    pictures = [picture(seed) for seed in range(4)]
    found = search.attributes(pictures)
    assert found.shape == (4, search.schema.size) and found.dtype == np.float32
    names = search.schema.names
    features = search.encode_images(pictures)
    for bit in ("gender=female", "upper_color=red", "hat"):
        np.testing.assert_allclose(
            found[:, names.index(bit)], by_hand(search, features, {bit: 1}), atol=1e-6
        )
    np.testing.assert_allclose(found[:, names.index("age=adult")], 1, rtol=1e-6)


def test_words_can_be_compared_with_what_the_model_knows(search):
    features = search.encode_images([picture(seed) for seed in range(30)])
    sentences = [search.template.render(bits).text for bits in CATEGORIES]
    bank = search.encode_text(sentences).astype(np.float64)
    cosines = features @ search.encode_text(["a red coat"])[0].astype(np.float64)
    expected = cosines / 0.05 - np.log(np.exp(features @ bank.T / 0.05).sum(1))
    ranked = search.rank("a red coat", features, k=30, normalised=True)
    assert [index for index, _ in ranked] == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose([s for _, s in ranked], -np.sort(-expected), atol=1e-4)


def test_words_that_nobody_has_seen_are_named(search, caplog):
    features = search.encode_images([picture(0)])
    search.rank("a woman with a parasol", features)
    (record,) = [r.message for r in caplog.records if "never seen" in r.message]
    assert record == "this model has never seen the words a, with, parasol"
    caplog.clear()
    search.rank("woman", features)
    search.rank("gender=female", features)
    assert "never seen" not in caplog.text


def test_a_model_whose_words_have_died_is_told_of(model, tmp_path, caplog):
    params = flatten(model)
    name = "clip.text.token_embedding"
    dead = bind(model, params | {name: params[name].at[1000:2000].set(0)})
    PersonSearch.load(save(tmp_path, dead))
    assert "1000 of 49408 words" in caplog.text and "weight decay" in caplog.text
    caplog.clear()
    PersonSearch.load(save(tmp_path / "sound", model))
    assert "exactly zero" not in caplog.text


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
