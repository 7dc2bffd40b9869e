"""What a gallery is asked for, beside the scores of its parts."""

import json
import sys

import numpy as np
import pytest
from samples import picture

from aima_jax.cli import main
from aima_jax.search import find_pictures, index_folder, parse_request

COUNT = 60


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    for seed in range(COUNT):
        picture(seed).save(folder / f"{seed:04}_c{seed % 3}s1_{seed:06}_00.png")
    return folder


@pytest.fixture(scope="module")
def gallery(search, crops, tmp_path_factory):
    return index_folder(search, crops, tmp_path_factory.mktemp("place") / "gallery")[0]


@pytest.fixture(scope="module")
def features(search, crops):
    return search.encode_images(sorted(crops.iterdir()))


def numbers(found):
    return [int(each.name[:4]) for each in found]


def probability(search, description, features):
    ranked = search.rank(description, features, COUNT)
    return np.array([score for _, score in sorted(ranked)])


def cosine(search, text, features):
    return features.astype(float) @ search.encode_text([text])[0].astype(float)


def check(found, scores):
    """The best by some scores, in their order, with their values."""
    assert numbers(found) == np.argsort(-scores, kind="stable")[: len(found)].tolist()
    np.testing.assert_allclose(
        [each.score for each in found], np.sort(scores)[::-1][: len(found)], rtol=1e-4
    )
    assert [each.rank for each in found] == list(range(1, len(found) + 1))


def test_one_description_is_ranked_by_its_probability(search, gallery, features):
    request = parse_request(search, ["gender=female,upper_color=red"])
    found = find_pictures(search, gallery, request, 20)
    check(found, probability(search, "gender=female,upper_color=red", features))
    assert all(each.probability == each.score and each.cosine is None for each in found)
    assert found[0].facts["camera"] == int(found[0].name[:4]) % 3


def test_terms_multiply_to_the_power_of_their_weights(search, gallery, features):
    request = parse_request(
        search, ["gender=female^2", {"upper_color": "red"}], without=["hair=short"]
    )
    expected = (
        probability(search, "gender=female", features) ** 2
        * probability(search, "upper_color=red", features)
        * (1 - probability(search, "hair=short", features))
    )
    check(find_pictures(search, gallery, request, COUNT), expected)
    assert "(×2)" in request.text and "without: " in request.text


def test_words_and_pictures_are_ranked_by_their_mean_cosine(search, gallery, features, crops):
    request = parse_request(search, ["a red coat^3"], without=["a tall man"])
    expected = (
        3 * cosine(search, "a red coat", features) - cosine(search, "a tall man", features)
    ) / 4
    check(find_pictures(search, gallery, request, 10), expected)
    path = sorted(crops.iterdir())[7]
    found = find_pictures(search, gallery, parse_request(search, like=[path]), 3)
    assert numbers(found)[0] == 7 and found[0].cosine == pytest.approx(1, abs=1e-5)


def test_attributes_and_a_picture_at_once(search, gallery, features, crops):
    path = sorted(crops.iterdir())[7]
    request = parse_request(search, ["gender=female"], like=[path])
    found = find_pictures(search, gallery, request, COUNT)
    p = probability(search, "gender=female", features)
    expected = np.log(p) + features @ features[7] / search.temperature
    check(found, expected)
    np.testing.assert_allclose([each.probability for each in found], p[numbers(found)], rtol=1e-4)


def test_filters_and_pages(search, gallery, features):
    request = parse_request(search, ["gender=female"], where="camera == 1 and frame < 40")
    kept = [n for n in range(COUNT) if n % 3 == 1 and n < 40]
    p = probability(search, "gender=female", features)
    order = sorted(kept, key=lambda n: -p[n])
    assert numbers(find_pictures(search, gallery, request, COUNT)) == order
    pages = [find_pictures(search, gallery, request, 5, skip=skip) for skip in (0, 5, 10)]
    assert [n for page in pages for n in numbers(page)] == order[:15]
    assert [each.rank for each in pages[1]] == [6, 7, 8, 9, 10]
    words = parse_request(search, ["a coat"])
    assert numbers(find_pictures(search, gallery, words, 9))[4:] == numbers(
        find_pictures(search, gallery, words, 5, skip=4)
    )
    middle = float(np.median(p))
    above = find_pictures(
        search, gallery, parse_request(search, ["gender=female"], above=middle), COUNT
    )
    assert len(above) == (p >= middle).sum()


def test_what_is_said_without_an_agreeing_category_is_found_as_well(search, gallery, features):
    """No training category has a blue top and long hair: completions stand for it."""
    said = "upper_color=blue,hair=long"
    check(
        find_pictures(search, gallery, parse_request(search, [said]), 9),
        probability(search, said, features),
    )
    without = find_pictures(search, gallery, parse_request(search, without=[said]), COUNT)
    check(without, 1 - probability(search, said, features))


QUERIES = ("gender=female", "upper_color=red", "hair=short,gender=female")


@pytest.mark.parametrize("names", ["queries", "without"])
@pytest.mark.parametrize("query", QUERIES)
def test_few_candidates_hold_the_best_where_the_gallery_holds_shares(search, gallery, query, names):
    request = parse_request(
        search, ["a coat"], **{"without": [query]} if names == "without" else {}
    )
    if names == "queries":
        request = parse_request(search, [query, "a coat"])
    exact = numbers(find_pictures(search, gallery, request, 6))
    assert numbers(find_pictures(search, gallery, request, 6, depth=1)) == exact


def test_candidates_by_the_first_order_vector_hold_most_of_the_best(search, gallery, monkeypatch):
    """Two fifths of the gallery as candidates hold nearly all of the best tenth."""
    monkeypatch.setattr(gallery, "every", lambda *_: None)
    shares = []
    for query in QUERIES:
        for names in ({"queries": [query]}, {"without": [query]}):
            request = parse_request(search, **names)
            exact = numbers(find_pictures(search, gallery, request, 6))
            near = numbers(find_pictures(search, gallery, request, 6, depth=24))
            shares.append(len({*exact} & {*near}) / 6)
    assert np.mean(shares) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing is asked for"),
        ({"queries": ["gendre=female"]}, "did you mean 'gender'"),
        ({"queries": ["hat^0"]}, "a weight is above 0"),
        ({"queries": ["a coat"], "above": 0.5}, "only attributes have a probability"),
        ({"queries": ["hat"], "above": 2}, "between 0 and 1"),
        ({"queries": ["hat"], "where": "f(1)"}, "cannot be read"),
        ({"like": ["/nowhere.png"]}, "no such picture"),
    ],
)
def test_a_wrong_request_gets_a_message(search, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse_request(search, **arguments)


def test_the_command_line_asks_all_of_it(search, gallery, crops, tmp_path, capsys, monkeypatch):
    run = ["search", "gender=female", "a coat", "--workdir", str(search.checkpoint.parent.parent)]
    run += ["--gallery", gallery.place, "--without", "upper_color=red", "--where", "camera == 2"]
    run += ["--like", str(sorted(crops.iterdir())[3]), "--k", "4"]
    assert main([*run, "--json", "--out", str(tmp_path / "x.png")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["facts"]["camera"] for each in said["found"]] == [2] * 4
    assert said["pictures"] == COUNT and (tmp_path / "x.png").exists()
    paths = [each["path"] for each in said["found"]]
    assert main(run) == 0
    assert capsys.readouterr().out.splitlines() == paths
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(run) == 0
    shown = capsys.readouterr().out
    assert f"in {COUNT} pictures of {crops}:" in shown
    assert all(each["name"] in shown for each in said["found"]) and "camera=2" in shown
