"""Retrieval metrics: by hand, against plain loops, and what is refused."""

import itertools

import jax.numpy as jnp
import naive_retrieval
import numpy as np
import pytest

from aima_jax.evaluation import retrieval_metrics
from aima_jax.evaluation.metrics import irrelevant_above, query_metrics, random_ranking

NAMES = ("R1", "R5", "R10", "mAP", "mINP")


def naive_means(similarity, relevant, ignored, average_precision):
    rows = []
    for scores, hits, out in zip(similarity, relevant, ignored, strict=True):
        places = naive_retrieval.ranked_hits(scores[~out], hits[~out])
        if any(places):
            rows.append(naive_retrieval.query_metrics(places, average_precision))
    return {name: np.mean([row[name] for row in rows]) for name in NAMES}


def random_problem(seed, queries=30, gallery=60):
    """Scores of few distinct values, queries with one relevant image, with none left, with all."""
    rng = np.random.default_rng(seed)
    similarity = rng.integers(-4, 5, (queries, gallery)) / 8
    relevant = rng.random((queries, gallery)) < rng.choice([0.02, 0.1, 0.5], (queries, 1))
    ignored = rng.random((queries, gallery)) < 0.1
    relevant[0] = ignored[0]  # nothing is left of these
    relevant[1] = np.arange(gallery) == 7  # one
    relevant[2] = True
    return similarity, relevant, ignored


@pytest.mark.parametrize("average_precision", ["mean", "trapezoidal"])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_plain_loops(seed, average_precision):
    problem = random_problem(seed)
    similarity, relevant, ignored = problem
    metrics = retrieval_metrics(
        similarity, relevant, ignored=ignored, average_precision=average_precision
    )
    assert metrics == pytest.approx(naive_means(*problem, average_precision), rel=1e-12)
    assert all(type(value) is float for value in metrics.values())


def test_two_hits_by_hand():
    similarity = np.array([[0.6, 0.9, 0.8, 0.7]])
    relevant = np.array([[True, False, True, False]])  # at ranks 2 and 4
    assert retrieval_metrics(similarity, relevant) == pytest.approx(
        {"R1": 0, "R5": 1, "R10": 1, "mAP": (1 / 2 + 2 / 4) / 2, "mINP": 2 / 4}
    )
    trapezoidal = retrieval_metrics(similarity, relevant, average_precision="trapezoidal")
    assert trapezoidal["mAP"] == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


def test_precision_before_a_hit_at_rank_one_is_one():
    similarity, relevant = np.array([[0.9, 0.5, 0.1]]), np.array([[True, False, True]])
    metrics = retrieval_metrics(similarity, relevant, average_precision="trapezoidal")
    assert metrics["mAP"] == pytest.approx(((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_a_tie_ranks_the_relevant_image_last_wherever_it_lies():
    similarity = np.full((3, 5), 0.25)
    relevant = np.eye(3, 5, dtype=bool)
    metrics = retrieval_metrics(similarity, relevant)
    assert metrics == pytest.approx({"R1": 0, "R5": 1, "R10": 1, "mAP": 1 / 5, "mINP": 1 / 5})


def test_ignored_wins_over_relevant():
    similarity = np.array([[0.9, 0.8, 0.7]])
    relevant = np.array([[True, False, True]])
    metrics = retrieval_metrics(similarity, relevant, ignored=np.array([[True, False, False]]))
    assert metrics["mAP"] == pytest.approx(1 / 2)


def test_float64_differences_count():
    similarity = np.array([[0.5, np.nextafter(0.5, 1)]])
    relevant = np.array([[False, True]])
    assert retrieval_metrics(similarity, relevant)["R1"] == 1
    assert retrieval_metrics(similarity.astype(np.float32), relevant)["R1"] == 0


def test_the_order_of_the_gallery_does_not_matter():
    similarity, relevant, ignored = random_problem(9)
    order = np.random.default_rng(0).permutation(similarity.shape[1])
    metrics = retrieval_metrics(similarity, relevant, ignored=ignored)
    similarity, relevant, ignored = (x[:, order] for x in (similarity, relevant, ignored))
    assert retrieval_metrics(similarity, relevant, ignored=ignored) == metrics


def test_half_precision_device_arrays_are_taken():
    similarity, relevant, _ = random_problem(3)
    half = retrieval_metrics(jnp.asarray(similarity, jnp.bfloat16), jnp.asarray(relevant))
    assert half == retrieval_metrics(similarity, relevant)  # eighths are exact in bfloat16


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_scored_is_refused():
    similarity, relevant = np.eye(3), np.eye(3, dtype=bool)
    with pytest.raises(ValueError, match="the same shape"):
        retrieval_metrics(similarity, relevant[:2])
    with pytest.raises(ValueError, match="no query has a relevant image"):
        retrieval_metrics(similarity, relevant, ignored=relevant)
    with pytest.raises(ValueError, match="query 1 contain NaN"):
        retrieval_metrics(np.where(relevant & (np.arange(3) == 1), np.nan, similarity), relevant)
    with pytest.raises(ValueError, match="average_precision"):
        retrieval_metrics(similarity, relevant, average_precision="median")


@pytest.mark.parametrize(("images", "relevant"), [(1, [1]), (6, [2, 0, 1]), (7, [3, 7, 5, 1])])
def test_random_ranking_is_the_mean_over_all_orders(images, relevant):
    rows = []
    for count in filter(None, relevant):
        orders = itertools.combinations(range(images), count)  # the places of the relevant images
        hits = [[place in places for place in range(images)] for places in orders]
        scored = [naive_retrieval.query_metrics(each) for each in hits]
        rows.append({name: np.mean([row[name] for row in scored]) for name in ("R1", "mAP")})
    expected = {name: np.mean([row[name] for row in rows]) for name in ("R1", "mAP")}
    assert random_ranking(np.array(relevant), images) == pytest.approx(expected, rel=1e-12)


def test_precision_at_k_counts_ties_against_the_query():
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    relevant = np.array([0, 2, 4])
    order, above = irrelevant_above(scores, relevant)
    assert order.tolist() == [0, 2, 4]
    assert above.tolist() == [0, 2, 2]  # ranks 1, 4 and 5
    metrics = query_metrics([above, np.array([], int)], precision_at=(2, 4, 10))
    expected = {"P2": [1 / 2, np.nan], "P4": [2 / 4, np.nan], "P10": [3 / 10, np.nan]}
    for name, values in expected.items():
        np.testing.assert_array_equal(metrics[name], values)
