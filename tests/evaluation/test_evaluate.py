"""What results.json says it is about: which checkpoint, which dataset, what training has seen."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from samples import CATEGORIES, make_model, metadata, save

import aima_jax
from aima_jax import checkpoint, evaluation
from aima_jax.data import categories, open_dataset
from aima_jax.evaluation import retrieval_metrics
from configs import synthetic
from tfds_builders.prepare import prepare

DATASET = "synthetic_pedestrians/train8-val4-test36-seed0"
OTHER = "synthetic_pedestrians/train8-val4-test12-seed1"
SCORES = {2: 0.5, 4: 0.5, 6: 0.1}  # by the rule for ties 4 is the best


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in (DATASET, OTHER):
        prepare(name, data_dir=folder)
    return folder


@pytest.fixture(scope="module")
def test_categories(data_dir):
    split = open_dataset(prepare(DATASET, data_dir=data_dir)).split("test")
    return categories(split.attributes)[0]


def about(data_dir, test_categories, **changes):
    """What a run says that was trained on one of the test split's categories."""
    checksum = open_dataset(prepare(DATASET, data_dir=data_dir)).contents["train"]
    return dataclasses.replace(
        metadata(make_model(), validation_categories=0, **changes),
        categories=checkpoint.pack_categories(test_categories[:1]),
        dataset={"name": DATASET, "checksum": checksum, "categories": 1},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data_dir, test_categories):
    description = about(data_dir, test_categories, selection="validation")
    folder = tmp_path_factory.mktemp("saved") / "run"
    return save(folder, make_model(), description, tuple(SCORES), tuple(SCORES.values()))


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


@pytest.fixture
def config(data_dir):
    config = synthetic.get_config()
    config.update({"dataset": DATASET, "data_dir": str(data_dir), "report": False})
    config.protocols = ("standard",)
    return config


def results(workdir, name="results.json"):
    return json.loads((workdir / name).read_text())


def test_results_say_by_what_their_checkpoint_was_chosen(workdir, config):
    found = evaluation.evaluate(config, workdir)
    assert found == results(workdir)
    assert found["step"] == 4
    assert found["checkpoint"] == {"chosen_by": "best validation Rank-1", "passed_over": []}
    assert "step 4 (best validation Rank-1)" in evaluation.results_table(found)


def test_the_newest_checkpoint_is_evaluated_where_the_config_says_so(workdir, config):
    config.selection = "latest"
    found = evaluation.evaluate(config, workdir)
    assert (found["step"], found["checkpoint"]["chosen_by"]) == (6, "newest")


def test_another_checkpoint_than_the_best_is_told_in_the_results_and_on_the_last_line(
    workdir, config
):
    best = workdir / "checkpoints" / "4"
    next(best.glob("params/**/d/*")).unlink()
    found = evaluation.evaluate(config, workdir)
    assert found["step"] == 6
    [line] = found["checkpoint"]["passed_over"]
    assert line.startswith(f"{best} is damaged: params/") and line.endswith(" is missing")
    assert evaluation.results_table(found).splitlines()[-1] == f"passed over: {line}"
    assert best.is_dir()  # nothing damaged is deleted


def test_a_checkpoint_chosen_on_the_test_split_is_not_said_to_be_validated(
    data_dir, test_categories, config, tmp_path, caplog
):
    """Its dataset has changed since, which is told."""
    description = about(data_dir, test_categories, selection="test")
    description.dataset["checksum"] = "another"
    save(tmp_path / "run", make_model(), description, (3,), (0.5,))
    found = evaluation.evaluate(config, tmp_path / "run")
    assert found["checkpoint"]["chosen_by"] == "best test Rank-1"
    [told] = caplog.messages
    assert told.startswith(f"{DATASET} has changed since the model was trained on it")


def test_scores_by_posterior_are_those_of_the_formula(data_dir, test_categories, config, tmp_path):
    """log p = v·t / T - log Σ_c exp(v·t_c / T) over the training categories, T of the config."""
    description = about(data_dir, test_categories, selection="latest")
    description = dataclasses.replace(description, categories=metadata(make_model()).categories)
    config.posterior_temperature = 0.03
    found = evaluation.evaluate(config, save(tmp_path / "run", make_model(), description))
    assert found["posterior"] == {"temperature": 0.03, "categories": len(CATEGORIES)}
    search = aima_jax.load(tmp_path / "run")
    split = open_dataset(prepare(DATASET, data_dir=data_dir)).split("test")
    pictures = split.images(np.arange(len(split)), search.image_size)
    images = search.encode_images(list(pictures)).astype(np.float64)
    texts, bank = (
        search.encode_text([search.template.render(bits).text for bits in part])
        for part in (test_categories, CATEGORIES)
    )
    exponents = texts @ images.T / 0.03
    scores = exponents - np.log(np.exp(bank @ images.T / 0.03).sum(axis=0))
    relevant = categories(split.attributes)[1] == np.arange(len(test_categories))[:, None]
    standard = found["protocols"]["standard"]
    by_posterior, by_cosine = (retrieval_metrics(x, relevant) for x in (scores, exponents))
    assert by_posterior["mAP"] != by_cosine["mAP"]
    for name in ("R1", "mAP"):
        assert standard["posterior"][name] == pytest.approx(by_posterior[name], abs=1e-6)
        assert standard[name] == pytest.approx(by_cosine[name], abs=1e-6)


def test_seen_is_what_the_checkpoint_was_trained_on(workdir, config, test_categories):
    standard = evaluation.evaluate(config, workdir)["protocols"]["standard"]
    for scores in (standard, standard["posterior"]):
        assert scores["seen"]["queries"] == 1
        assert scores["unseen"]["queries"] == len(test_categories) - 1 == 2


def test_results_of_another_dataset_have_files_of_their_own(workdir, config, data_dir, caplog):
    config.update({"report": True, "save_rankings": True})
    evaluation.evaluate(config, workdir)
    names = ("results.json", "rankings.npz")
    before = {name: (workdir / name).read_bytes() for name in names}
    drawn = {path.name: path.stat().st_mtime_ns for path in (workdir / "report").iterdir()}
    assert not caplog.messages
    config.dataset = OTHER
    found = evaluation.evaluate(config, workdir)
    assert {name: (workdir / name).read_bytes() for name in names} == before
    assert {p.name: p.stat().st_mtime_ns for p in (workdir / "report").iterdir()} == drawn
    suffix = f"-{OTHER.replace('/', '-')}"
    assert results(workdir, f"results{suffix}.json") == found
    assert found["dataset"] == OTHER
    assert (workdir / f"rankings{suffix}.npz").exists() and (workdir / f"report{suffix}").is_dir()
    # Another dataset's categories, judged by those of the model's training.
    split = open_dataset(prepare(OTHER, data_dir=data_dir)).split("test")
    trained = {bits.tobytes() for bits in checkpoint.load_model(workdir).categories}
    seen = sum(bits.tobytes() in trained for bits in categories(split.attributes)[0])
    part = found["protocols"]["standard"]["seen"]
    assert (part["queries"] if part else 0) == seen
    [told] = [message for message in caplog.messages if "may contain training pictures" in message]
    assert OTHER in told and DATASET in told


def test_a_field_is_checked_in_evaluation_too(workdir, config):
    config.protocols = ()
    with pytest.raises(ValueError, match=r"config\.protocols"):
        evaluation.evaluate(config, workdir)
    assert not (workdir / "results.json").exists()


def test_the_bank_beside_a_checkpoint_is_of_its_sentences(workdir, config):
    evaluation.evaluate(config, workdir)
    with np.load(workdir / "checkpoints" / "4.bank.npz") as bank:
        assert bank["features"].shape == (1, make_model().config.clip.dim)
        assert str(bank["model_id"]) == checkpoint.load_model(workdir).model_id
