"""Blocked rankings and first places: equal to plain loops, on any blocks and devices."""

import jax
import naive_retrieval
import numpy as np
import pytest

from aima_jax.evaluation import retrieval_metrics, similarity
from aima_jax.evaluation.metrics import ranked_in_order
from aima_jax.evaluation.protocols import GalleryLabels, evaluate_rankings, removed_images
from aima_jax.evaluation.similarity import GalleryFeatures, top_k

MARKET = {"cameras": True, "query_folder": "query"}
NO_CAMERAS = {"cameras": False, "query_folder": None}
PROTOCOLS = ("standard", "sal", "asmr")
QUERIES, GALLERY = 12, 900


def placed(features, devices=1, block_size=128):
    return GalleryFeatures(features, devices=jax.devices()[:devices], block_size=block_size)


def labels_for(seed):
    """Categories from none to hundreds of images, one of a single image, some that no query asks.

    Images lie in no order, and every category has some in query/.
    """
    rng = np.random.default_rng(seed)
    category = np.append(rng.choice(15, GALLERY - 1, p=[0.6] + [0.4 / 14] * 14) + 1, 30)
    folder = rng.choice(["query/", "bounding_box_test/"], GALLERY)
    folder[category == 30] = "query/"
    number = np.char.zfill(rng.permutation(GALLERY).astype(str), 5)
    order = rng.permutation(GALLERY)
    return GalleryLabels(
        category[order],
        rng.integers(0, 40, GALLERY),
        rng.integers(1, 4, GALLERY),
        np.char.add(folder, number)[order],
    )


QUERY_CATEGORY = np.array([5, 1, 30, 2, 99, 3, 4, 6, 7, 8, 9, 10])  # no image is of 99


def integer_features(seed, dim=5):
    """Their products are exact in float32 in any order, and most of them tie."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(-1, 2, (QUERIES, dim)).astype(np.float32),
        rng.integers(-1, 2, (GALLERY, dim)).astype(np.float32),
    )


def normal_features(seed, dim=33):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((QUERIES, dim), dtype=np.float32),
        rng.standard_normal((GALLERY, dim), dtype=np.float32),
    )


def images_of(labels):
    names = ("category", "identity", "camera", "filename")
    rows = zip(*(getattr(labels, name).tolist() for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def all_similarities(queries, features, devices, block_size):
    groups = list(placed(features, devices, block_size).similarities(queries))
    rows = [row for group, rows in groups for row in rows]
    covered = [index for group, _ in groups for index in range(group.start, group.stop)]
    assert covered == list(range(len(queries)))
    return np.array(rows)


@pytest.fixture
def few_at_once(monkeypatch):
    """Queries in groups of five."""
    monkeypatch.setattr(similarity, "_GROUP_BYTES", 5 * 4 * GALLERY)


@pytest.mark.parametrize("traits", [MARKET, NO_CAMERAS])
@pytest.mark.parametrize(("devices", "block_size"), [(1, 128), (3, 100), (8, 2048)])
def test_rankings_are_those_of_plain_loops(traits, devices, block_size, few_at_once):
    queries, gallery = integer_features(0)
    labels = labels_for(1)
    seen = QUERY_CATEGORY % 2 == 0
    results = evaluate_rankings(
        queries,
        placed(gallery, devices, block_size),
        QUERY_CATEGORY,
        labels,
        PROTOCOLS,
        traits=traits,
        seen=seen,
    )
    assert tuple(results) == PROTOCOLS
    similarity = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    for protocol, result in results.items():
        expected = naive_retrieval.evaluate(
            similarity,
            QUERY_CATEGORY,
            images_of(labels),
            protocol,
            cameras=traits["cameras"],
            seen=seen,
        )
        for part in ("seen", "unseen"):
            assert result.pop(part) == pytest.approx(expected.pop(part), rel=1e-12)
        assert result == pytest.approx(expected, rel=1e-12)
    assert results["standard"]["skipped_queries"] == 1  # the category without images
    assert results["sal"]["skipped_queries"] == 2  # and the one whose only image is removed


@pytest.mark.parametrize("devices", [1, 8])
def test_rankings_equal_the_metrics_of_the_full_matrix_exactly(devices):
    queries, gallery = normal_features(2)
    labels = labels_for(3)
    similarity = all_similarities(queries, gallery, 1, 1024)
    relevant = QUERY_CATEGORY[:, None] == labels.category
    results = evaluate_rankings(
        queries,
        placed(gallery, devices),
        QUERY_CATEGORY,
        labels,
        PROTOCOLS,
        traits=NO_CAMERAS,
    )
    for protocol, result in results.items():
        expected = retrieval_metrics(
            similarity,
            relevant,
            ignored=relevant & removed_images(protocol, labels, NO_CAMERAS),
            average_precision="trapezoidal" if protocol == "asmr" else "mean",
        )
        assert {name: result[name] for name in expected} == expected


@pytest.mark.parametrize("dim", [8, 33, 512])
def test_a_pair_has_the_same_bits_in_every_block_on_any_devices(dim, few_at_once):
    queries, gallery = normal_features(4, dim)
    once = all_similarities(queries, gallery, 1, 1024)
    for devices, block_size in ((1, 128), (3, 128), (8, 128), (8, 1000)):
        again = all_similarities(queries, gallery, devices, block_size)
        np.testing.assert_array_equal(again, once)
    np.testing.assert_allclose(once, queries.astype(np.float64) @ gallery.T, rtol=0, atol=1e-4)


def test_a_copy_of_the_relevant_image_in_another_block_ranks_before_it():
    queries, gallery = normal_features(5)
    category = np.full(GALLERY, 50)
    category[:QUERIES] = QUERY_CATEGORY
    gallery[-QUERIES:] = gallery[:QUERIES] = queries  # by far the most similar
    zeros = np.zeros(GALLERY, np.int32)
    labels = GalleryLabels(category, zeros, zeros, zeros.astype(str))
    result = evaluate_rankings(
        queries,
        placed(gallery),
        QUERY_CATEGORY,
        labels,
        ["standard"],
        traits=NO_CAMERAS,
    )["standard"]
    assert result["R1"] == 0
    assert result["mAP"] == result["mINP"] == 1 / 2


@pytest.mark.parametrize("images", [1, 3, 11])
def test_fewer_images_than_devices_or_rows(images):
    queries, gallery = integer_features(6)
    gallery, category = gallery[:images], QUERY_CATEGORY[np.arange(images) % 4]
    zeros = np.zeros(images, np.int32)
    labels = GalleryLabels(category, zeros, zeros, zeros.astype(str))
    result = evaluate_rankings(
        queries, placed(gallery, 8), QUERY_CATEGORY, labels, ["standard"], traits=NO_CAMERAS
    )
    expected = naive_retrieval.evaluate(
        queries @ gallery.T, QUERY_CATEGORY, images_of(labels), "standard"
    )
    assert result["standard"] == pytest.approx(expected, rel=1e-12)


def upar_case(seed, images, bits, features=3):
    """Descriptions of a few bits, of which many are near, and features of which many tie."""
    rng = np.random.default_rng(seed)
    attributes = rng.integers(0, 2, (images, bits)).astype(np.uint8)
    queries, category = np.unique(attributes, axis=0, return_inverse=True)
    zeros = np.zeros(images, np.int32)
    return (
        queries,
        attributes,
        GalleryLabels(category.reshape(-1), zeros, zeros, zeros.astype(str)),
        rng.integers(-1, 2, (len(queries), features)).astype(np.float32),
        rng.integers(-1, 2, (images, features)).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("images", "bits"),
    [(200, 5), (200, 40), (1, 3), (2, 1), (7, 2)],
    ids=["many of each", "one of each", "one image", "two images", "few"],
)
@pytest.mark.parametrize("seed", range(3))
def test_upar_is_that_of_plain_loops(seed, images, bits, monkeypatch):
    monkeypatch.setattr(similarity, "_GROUP_BYTES", 5 * 4 * images)
    queries, attributes, labels, texts, gallery = upar_case(seed, images, bits)

    def posterior(cosines):
        return cosines.astype(np.float64) / 3 - np.arange(images) % 4

    found = evaluate_rankings(
        texts,
        gallery,
        np.arange(len(queries)),
        labels,
        ["standard", "upar"],
        traits=NO_CAMERAS,
        attributes=(queries, attributes),
        posterior=posterior,
    )
    cosines = texts.astype(np.float64) @ gallery.T.astype(np.float64)
    distances = np.abs(queries[:, None].astype(int) - attributes[None]).sum(2)
    for result, scores in (
        (found["upar"], cosines),
        (found["upar"]["posterior"], posterior(cosines)),
    ):
        expected = [
            naive_retrieval.upar_query(row.tolist(), away.tolist())
            for row, away in zip(scores, distances, strict=True)
        ]
        for name in set(result) & set(expected[0]):
            mean = float(np.mean([query[name] for query in expected]))
            assert result[name] == pytest.approx(mean, rel=1e-12), name
    assert {"R1", "R5", "R10", "mAP", "mINP", "mADM"} <= set(found["upar"])
    assert set(found["upar"]["posterior"]) == {"R1", "mAP", "mADM", "queries"}
    assert found["standard"].keys() | {"mADM"} == found["upar"].keys()


def test_equally_far_images_are_all_worth_1_and_ties_keep_the_gallerys_order():
    """A query that is no image's twin in score; written out by hand."""
    scores = np.array([0.5, 0.9, 0.5, 0.5])
    above, value = ranked_in_order(scores, np.array([2, 3]), np.zeros(4, np.float32))
    assert above.tolist() == [2, 2] and value == 1
    # d = 0, 3, 1, 0: S = 4, N·d = 0, 12, 4, 0: worth 1, 0, 0, 1; ranks 1 and 2 of the twins.
    distances = np.array([0, 3, 1, 0], np.float32)
    above, value = ranked_in_order(np.zeros(4), np.array([0, 3]), distances)
    assert above.tolist() == [0, 2] and value == (1 / 1 + 2 / 4) / 2
    above, value = ranked_in_order(scores, np.zeros(0, int), distances)
    assert above.size == 0 and np.isnan(value)


def test_upar_needs_attributes():
    queries, _, labels, texts, gallery = upar_case(0, 7, 2)
    with pytest.raises(ValueError, match="'upar' needs the attributes of the queries and of the i"):
        evaluate_rankings(
            texts, gallery, np.arange(len(queries)), labels, ["upar"], traits=NO_CAMERAS
        )


def test_similarities_are_computed_once_for_all_protocols_and_scorings(monkeypatch):
    asked, seen = [], []
    similarities = GalleryFeatures.similarities

    def counted(self, queries):
        asked.append(len(queries))
        return similarities(self, queries)

    monkeypatch.setattr(GalleryFeatures, "similarities", counted)
    queries, images = integer_features(8)
    evaluate_rankings(
        queries,
        images,
        QUERY_CATEGORY,
        labels_for(8),
        PROTOCOLS,
        traits=MARKET,
        posterior=lambda cosines: cosines / 0.05,
        each=seen.append,
    )
    assert asked == [QUERIES]
    np.testing.assert_array_equal(np.concatenate(seen), queries @ images.T)


def test_a_part_without_queries_is_none():
    queries, gallery = integer_features(7)
    seen = np.zeros(QUERIES, bool)
    result = evaluate_rankings(
        queries, gallery, QUERY_CATEGORY, labels_for(7), ["asmr"], traits=NO_CAMERAS, seen=seen
    )["asmr"]
    assert result["seen"] is None
    assert result["unseen"] == {name: result[name] for name in ("R1", "mAP", "queries")}


def test_rankings_of_what_cannot_be_ranked_are_refused():
    queries, gallery = integer_features(8)
    labels = labels_for(8)

    def evaluated(queries=queries, gallery=gallery, category=QUERY_CATEGORY, protocol="standard"):
        protocols = [protocol] if protocol else []
        return evaluate_rankings(
            queries, placed(gallery), category, labels, protocols, traits=NO_CAMERAS
        )

    broken = gallery.copy()
    broken[700, 2] = np.nan
    with pytest.raises(ValueError, match="image 700 are not finite"):
        evaluated(gallery=broken)
    with pytest.raises(ValueError, match="query 3 are not finite"):
        evaluated(queries=np.where(np.arange(QUERIES)[:, None] == 3, np.inf, queries))
    with pytest.raises(ValueError, match=r"\[12, 4\]; expected .* shape \[900, 5\]"):
        evaluated(queries=queries[:, :4])
    with pytest.raises(ValueError, match=r"has shape \[0, 5\]"):
        evaluated(gallery=gallery[:0])
    with pytest.raises(ValueError, match="as many labels"):
        evaluated(gallery=gallery[1:])
    with pytest.raises(ValueError, match="two queries have the same category"):
        evaluated(category=np.arange(QUERIES) // 2)
    with pytest.raises(ValueError, match="no image of the gallery has the category"):
        evaluated(category=np.arange(QUERIES) + 100)
    with pytest.raises(ValueError, match="protocol 'cuhk' is unknown"):
        evaluated(protocol="cuhk")
    with pytest.raises(ValueError, match="no protocol is given"):
        evaluated(protocol="")
    lonely = GalleryLabels(*(getattr(labels, n)[:1] for n in labels.__dataclass_fields__))
    with pytest.raises(ValueError, match="by protocol 'sal' no query has a relevant image"):
        evaluate_rankings(
            queries[:1], gallery[:1], lonely.category, lonely, ["sal"], traits=NO_CAMERAS
        )


@pytest.mark.parametrize(("k", "block_size"), [(1, 128), (10, 128), (10, 2048), (200, 128)])
def test_first_places_are_those_of_a_stable_sort(k, block_size):
    queries, gallery = integer_features(9)
    similarity = queries @ gallery.T
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    scores, indices = top_k(queries, GalleryFeatures(gallery, block_size=block_size), k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(similarity, expected, axis=1))


@pytest.mark.parametrize("kept_share", [0.9, 0.05, 0.0])
@pytest.mark.parametrize("resident", [True, False])
def test_first_places_of_a_part_of_the_gallery(kept_share, resident, few_at_once):
    queries, gallery = integer_features(13)
    kept = np.random.default_rng(14).random(GALLERY) < kept_share
    features = GalleryFeatures(
        gallery.astype(np.float16),
        devices=jax.devices()[:2],
        block_size=128,
        resident=resident,
    )
    scores, indices = features.first(queries, 10, kept)
    similarity = (queries @ gallery.T)[:, kept]
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(indices, np.flatnonzero(kept)[order])
    np.testing.assert_array_equal(scores, np.take_along_axis(similarity, order, axis=1))


def test_a_gallery_gives_the_same_first_places_again_and_to_queries_in_groups(few_at_once):
    queries, gallery = normal_features(10)
    similarity = queries.astype(np.float64) @ gallery.T
    expected = np.argsort(-similarity, axis=1)[:, :7]
    scores, indices = top_k(queries, gallery, 7)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, expected, axis=1), rtol=1e-6)
    many = placed(gallery)
    for again in (top_k(queries, many, 7), top_k(queries, many, 7)):
        np.testing.assert_array_equal(again[0], scores)
        np.testing.assert_array_equal(again[1], indices)


def test_first_places_of_a_small_gallery_are_all_of_it():
    queries, gallery = integer_features(11)
    scores, indices = top_k(queries, gallery[:3], 10)
    assert scores.shape == indices.shape == (QUERIES, 3)
    assert np.sort(indices, axis=1).tolist() == [[0, 1, 2]] * QUERIES


@pytest.mark.usefixtures("unchecked")
def test_first_places_of_what_cannot_be_ranked_are_refused():
    queries, gallery = integer_features(12)
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k(queries, gallery, 0)
    with pytest.raises(ValueError, match=r"query, 5\], as the gallery"):
        top_k(queries[0], gallery, 3)
    with pytest.raises(ValueError, match="image 2 are not finite"):
        GalleryFeatures(np.where(np.arange(GALLERY)[:, None] == 2, np.nan, gallery))


def test_galleries_of_many_sizes_have_a_few_block_sizes():
    sizes = {
        GalleryFeatures(np.zeros((images, 4), np.float32)).block_size for images in range(1, 1000)
    }
    assert sizes <= {128, 256, 512, 1024}


def test_products_are_taken_at_full_precision():
    """Which shows in the numbers on accelerators alone."""
    text = similarity._product.lower(np.zeros((2, 4)), np.zeros((3, 4))).as_text()
    assert text.count("precision = [HIGHEST, HIGHEST]") == 1
