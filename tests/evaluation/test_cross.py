"""A model asked about another dataset: beside plain loops, and as a whole evaluation."""

import dataclasses
import json

import naive_retrieval
import numpy as np
import pytest
import samples
from stand_ins import small_pa100k
from upar_files import small_upar

from aima_jax import evaluation
from aima_jax.checkpoint import pack_categories
from aima_jax.data.prepared import may_share_pictures
from aima_jax.evaluation.cross import evaluate_cross
from aima_jax.evaluation.posterior import Bank
from aima_jax.text import PromptTemplate
from configs import synthetic
from configs import upar as upar_config
from tfds_builders import pa100k, synthetic_pedestrians, upar
from tfds_builders.folder.example import write_example
from tfds_builders.prepare import prepare
from tfds_builders.upar.mapping import MEANINGS


def statements(bits, schema, meanings, shared):
    """What a row says of each shared bit, straight from the tables."""
    held = {name for name, bit in zip(schema.names, bits, strict=True) if bit}
    said = []
    for bit in shared:
        yes, no = meanings[bit]
        holds = bool(held & set(yes))
        lacks = not holds if no is None else bool(held & set(no))
        said.append(0 if holds == lacks else 1 if holds else -1)
    return tuple(said)


def contradict(a, b):
    return any(x * y == -1 for x, y in zip(a, b, strict=True))


def test_metrics_are_those_of_plain_loops():
    """A model that knows rendered people, asked about those of PA-100K."""
    rng = np.random.default_rng(0)
    own, other = synthetic_pedestrians.SCHEMA, pa100k.SCHEMA
    known = np.stack(
        [
            own.encode(
                {
                    group.name: bool(rng.integers(2))
                    if group.kind == "flag"
                    else str(rng.choice(group.answers))
                    for group in own.groups
                }
            )
            for _ in range(12)
        ]
    )
    gallery = (rng.random((60, 26)) < 0.4).astype(np.uint8)[rng.integers(0, 20, 60)]
    gallery[:, :4] = 0
    gallery[np.arange(60), rng.integers(1, 4, 60)] = 1
    images = rng.standard_normal((60, 8)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    features = rng.standard_normal((12, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    told: dict[str, np.ndarray] = {}

    def encode(texts):
        for text in texts:
            vector = rng.standard_normal(8).astype(np.float32)
            told.setdefault(text, vector / np.linalg.norm(vector))
        return np.stack([told[text] for text in texts])

    found = evaluate_cross(
        PromptTemplate(own, "sentence", synthetic_pedestrians.WORDING),
        encode,
        Bank(features, known, 0.1),
        images,
        gallery,
        other,
        own=MEANINGS["synthetic"],
        others=MEANINGS["pa100k"],
    )
    shared = [bit for bit in MEANINGS["synthetic"] if bit in MEANINGS["pa100k"]]
    assert found["attributes"] == shared and len(shared) == 11
    rows = [statements(bits, other, MEANINGS["pa100k"], shared) for bits in gallery]
    bank = [statements(bits, own, MEANINGS["synthetic"], shared) for bits in known]
    queries = sorted(set(rows) - {(0,) * 11})
    assert found["queries"] == len(queries)
    weights = np.exp(images.astype(np.float64) @ features.T.astype(np.float64) / 0.1)
    lost, chance = 0, []
    for query in queries:
        agree = [not contradict(category, query) for category in bank]
        lost += not any(agree)
        kept = [i for i, row in enumerate(rows) if row == query or contradict(row, query)]
        relevant = [rows[i] == query for i in kept]
        chance.append(sum(relevant) / len(kept))
    assert found["without_category"] == lost > 0
    assert found["random"]["R1"] == pytest.approx(np.mean(chance))
    for place, bit in enumerate(shared):
        scores = {
            i: weights[i] @ [category[place] for category in bank]
            for i, row in enumerate(rows)
            if row[place]
        }
        having = [i for i in scores if rows[i][place] == 1]
        without = [i for i in scores if rows[i][place] == -1]
        if not having or not without:
            assert bit not in found["bits"]
            continue
        order = [
            np.sign(scores[i] / weights[i].sum() - scores[j] / weights[j].sum())
            for i in having
            for j in without
        ]
        area = (np.mean(order) + 1) / 2
        assert found["bits"][bit]["AUC"] == pytest.approx(area, abs=1e-9), bit
        assert found["bits"][bit]["base"] == len(having) / len(scores)
    assert len(found["bits"]) > 5
    # Those that the bank answers, alone: without the others the whole is their mean.
    answered = np.array([any(not contradict(category, row) for category in bank) for row in rows])
    again = evaluate_cross(
        PromptTemplate(own, "sentence", synthetic_pedestrians.WORDING),
        encode,
        Bank(features, known, 0.1),
        images[answered],
        gallery[answered],
        other,
        own=MEANINGS["synthetic"],
        others=MEANINGS["pa100k"],
    )
    assert again["without_category"] == 0
    kept_rows = [row for row, ok in zip(rows, answered, strict=True) if ok]
    kept_weights = weights[answered]
    means = []
    for query in sorted(set(kept_rows) - {(0,) * 11}):
        agree = [not contradict(category, query) for category in bank]
        kept = [i for i, row in enumerate(kept_rows) if row == query or contradict(row, query)]
        relevant = [kept_rows[i] == query for i in kept]
        scores = [kept_weights[i][agree].sum() / kept_weights[i].sum() for i in kept]
        hits = naive_retrieval.ranked_hits(scores, relevant)
        means.append(naive_retrieval.query_metrics(hits))
    for name in ("R1", "R5", "R10", "mAP", "mINP"):
        expected = np.mean([query[name] for query in means])
        assert again["posterior"][name] == pytest.approx(expected, rel=1e-9), name


def test_a_whole_evaluation_names_both_datasets(tmp_path):
    workdir = samples.save(tmp_path / "run", samples.make_model())
    config = synthetic.get_config()
    config.dataset, config.data_dir = "pa100k", str(tmp_path / "data")
    prepare("pa100k", manual_dir=small_pa100k(tmp_path / "raw"), data_dir=tmp_path / "data")
    results = evaluation.evaluate(config, workdir)
    assert results == json.loads((workdir / "results-pa100k.json").read_text())
    assert (results["dataset"], results["split"]) == ("pa100k", "test")
    assert "trained_on" in results
    shared = results["protocols"]["shared"]
    assert len(shared["attributes"]) == 11 and shared["queries"] == 2  # women and men
    for name in ("posterior", "cosine"):
        assert 0 <= shared[name]["R1"] <= shared[name]["R5"] <= 1
    table = evaluation.results_table(results)
    assert "by posterior" in table and "11 shared bits" in table


def test_a_model_of_one_domain_of_upar_is_asked_about_another(tmp_path, caplog):
    model = samples.make_model()
    metadata = dataclasses.replace(
        samples.metadata(model),
        schema=upar.SCHEMA.to_dict(),
        wording=upar.WORDING.to_dict(),
        categories=pack_categories(np.eye(3, 40, dtype=np.uint8)),
        dataset={"name": "upar/market1501", "checksum": "", "categories": 3},
    )
    workdir = samples.save(tmp_path / "run", model, metadata)
    config = upar_config.get_config()
    config.dataset, config.data_dir = "upar/peta", str(tmp_path / "data")
    config.manual_dir, config.report = str(small_upar(tmp_path / "raw")), False
    results = evaluation.evaluate(config, workdir)
    assert results == json.loads((workdir / "results-upar-peta.json").read_text())
    assert (results["dataset"], results["trained_on"]) == ("upar/peta", "upar/market1501")
    assert tuple(results["protocols"]) == ("standard", "upar")
    assert results["protocols"]["upar"]["mADM"] == 1  # there is one picture
    assert "mADM" in evaluation.results_table(results)
    # All of UPAR keeps to one division into training and test.
    assert not [
        message for message in caplog.messages if "may contain training pictures" in message
    ]


@pytest.mark.parametrize(
    ("trained", "asked", "shared"),
    [
        ("upar/without_peta", "upar/peta", False),
        ("upar/all", "upar/market1501", False),
        ("peta/sal", "peta/random1", True),
        ("upar/peta", "peta/sal", True),
        ("market1501_attribute", "upar/without_market1501", True),
        ("market1501_attribute", "upar/without_peta", False),
        ("upar/without_peta", "peta/random1", False),
        ("upar/market1501", "pa100k", False),
        ("pa100k", "synthetic_pedestrians", False),
        ("somebody/else", "pa100k", False),
        ("", "pa100k", False),
    ],
)
def test_which_datasets_may_share_pictures(trained, asked, shared):
    assert may_share_pictures(trained, asked) is shared


def test_a_schema_without_a_table_is_refused(tmp_path):
    workdir = samples.save(tmp_path / "run", samples.make_model())
    write_example(tmp_path / "mine")
    config = synthetic.get_config()
    config.dataset, config.data_dir = "folder/example", str(tmp_path / "data")
    config.manual_dir = str(tmp_path / "mine")
    with pytest.raises(ValueError, match="no table maps the attributes of 'example'"):
        evaluation.evaluate(config, workdir)
