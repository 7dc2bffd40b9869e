"""From a checkpoint to results.json: encode, rank by each protocol, report."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aima_jax.checkpoint import FOLDER, Restored, load_model, select
from aima_jax.data import (
    Dataset,
    Split,
    categories,
    hold_out_categories,
    open_dataset,
    prepared_folder,
)
from aima_jax.distributed import from_first_host
from aima_jax.evaluation.encoder import Encoder
from aima_jax.evaluation.metrics import random_ranking
from aima_jax.evaluation.protocols import GalleryLabels
from aima_jax.evaluation.ranking import evaluate_rankings
from aima_jax.evaluation.report import Ranking, write_report
from aima_jax.evaluation.similarity import Gallery, top_k
from aima_jax.files import atomic_write, user_path, write_json
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh
from aima_jax.text import build_text_table
from aima_jax.workdir import METRICS, RANKINGS, REPORT, RESULTS, locked_workdir, record_start

_REPORTED_QUERIES = 12
_REPORTED_RANKS = 10
_SAVED_RANKS = 100


def evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Evaluates the chosen checkpoint of a workdir on the test split, and writes its results.

    The model, its schema and its prompt template come from the checkpoint; the dataset, the
    protocols and the places from the config.

    Returns:
        What `results.json` in the workdir holds then: see docs/architecture.md.

    Raises:
        FileNotFoundError: there is no sound checkpoint, or no such dataset.
        ValueError: another process works in the workdir, the dataset's attributes are not the
            model's, or no query has a relevant image.
    """
    workdir = user_path(workdir).resolve()
    with locked_workdir(workdir):
        return _evaluate(config, workdir)


def _evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    best = config.selection != "latest"
    step = from_first_host(lambda: int(select(workdir, best=best).path.name))
    restored = load_model(workdir / FOLDER / str(step), mesh=mesh)
    dataset = open_dataset(prepared_folder(config))
    split = dataset.split("test")
    if split.schema != restored.schema:
        raise ValueError(
            f"the checkpoint {restored.path} knows the attributes of {restored.schema.name!r}, "
            f"the dataset {config.dataset!r} has those of {split.schema.name!r}"
        )
    queries, category = categories(split.attributes)
    table = build_text_table(queries, restored.template)
    encoder = Encoder(restored.model, mesh, batch_size=config.eval_batch_size)
    params = flatten(restored.model)
    image_size = tuple(restored.config["image_size"])
    sentences = encoder.sentences(params, table.tokens[:, 0])
    gallery = Gallery(encoder.split(params, split, image_size, threads=config.data.threads))
    trained = _trained_categories(restored, dataset)
    scores = evaluate_rankings(
        sentences,
        gallery,
        np.arange(len(queries)),
        GalleryLabels(category, split.identity, split.camera, split.filename),
        config.protocols,
        traits=split.traits,
        seen=np.array([row.tobytes() in trained for row in queries]),
    )
    results = {
        "dataset": config.dataset,
        "split": "test",
        "step": restored.step,
        "protocols": scores,
        "random": random_ranking(np.bincount(category), len(split)),
    }
    if jax.process_index() == 0:
        about = {"name": split.dataset, "checksum": split.checksum}
        record_start(workdir, evaluated_step=step, dataset=about)
        similarity, ranking = top_k(sentences, gallery, _SAVED_RANKS)
        if config.save_rankings:
            _save_rankings(workdir / RANKINGS, table.sentences, split, similarity, ranking)
        if config.report:
            rankings = _reported(table.sentences, split, category, similarity, ranking, image_size)
            write_report(workdir / REPORT, metrics_path=workdir / METRICS, rankings=rankings)
        write_json(workdir / RESULTS, results)
    return results


def results_table(results: Mapping[str, Any]) -> str:
    """The results as lines for people, in percent."""
    columns = ("R1", "R5", "R10", "mAP", "mINP")

    def line(name: str, scores: Mapping[str, float]) -> str:
        cells = (f"{100 * scores[c]:7.1f}" if c in scores else " " * 7 for c in columns)
        return f"{name:<18}{''.join(cells)}{scores.get('queries', ''):>9}"

    lines = [
        f"{results['dataset']} {results['split']}, checkpoint of step {results['step']}, in %",
        f"{'protocol':<18}{''.join(f'{c:>7}' for c in columns)}{'queries':>9}",
    ]
    for name, scores in results["protocols"].items():
        lines.append(line(name, scores))
        lines += [
            line(f"  {part}", scores[part]) for part in ("seen", "unseen") if scores.get(part)
        ]
    return "\n".join([*lines, line("random ranking", results["random"])])


def _trained_categories(restored: Restored, dataset: Dataset) -> set[bytes]:
    """The attribute vectors that the model was trained on."""
    train = dataset.split("train")
    if held_out := restored.config["validation_categories"]:
        train, _ = hold_out_categories(train, held_out, seed=restored.config["seed"])
    return {row.tobytes() for row in train.attributes}


def _save_rankings(
    path: pathlib.Path,
    sentences: tuple[str, ...],
    split: Split,
    similarity: np.ndarray,
    ranking: np.ndarray,
) -> None:
    """Writes for each query its sentence, and its first images with their similarities."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, query=sentences, filename=split.filename[ranking], similarity=similarity)


def _reported(
    sentences: tuple[str, ...],
    split: Split,
    category: np.ndarray,
    similarity: np.ndarray,
    ranking: np.ndarray,
    image_size: tuple[int, int],
) -> list[Ranking]:
    """Twelve queries, spread over all, with the images ranked first."""
    spread = np.linspace(0, len(sentences) - 1, min(_REPORTED_QUERIES, len(sentences)))
    first = ranking[:, :_REPORTED_RANKS]
    return [
        Ranking(
            sentences[query],
            split.images(first[query], image_size),
            category[first[query]] == query,
            similarity[query, :_REPORTED_RANKS],
        )
        for query in spread.astype(int)
    ]
