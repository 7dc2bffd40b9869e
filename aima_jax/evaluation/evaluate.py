"""From a checkpoint to results.json: encode, rank by each protocol, report."""

import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from aima_jax.checkpoint import FOLDER, Restored, Selected, load_model, select
from aima_jax.data import Dataset, Split, categories, open_dataset, prepared_folder
from aima_jax.data.prepared import common_meanings, may_share_pictures
from aima_jax.distributed import from_first_host
from aima_jax.evaluation.cross import evaluate_cross
from aima_jax.evaluation.encoder import Encoder
from aima_jax.evaluation.metrics import METRICS, random_ranking
from aima_jax.evaluation.partial import PartialQueries
from aima_jax.evaluation.posterior import load_bank
from aima_jax.evaluation.protocols import AVERAGE_PRECISION, GalleryLabels, evaluate_rankings
from aima_jax.evaluation.report import Ranking, write_report
from aima_jax.evaluation.similarity import GalleryFeatures, first_places
from aima_jax.fields import check_config
from aima_jax.files import atomic_write, user_path, write_json
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh
from aima_jax.text import build_text_table
from aima_jax.workdir import METRICS_FILE, RANKINGS, REPORT, RESULTS, locked_workdir, record_start

_REPORTED_QUERIES = 12
_REPORTED_RANKS = 10
_SAVED_RANKS = 100

_log = logging.getLogger(__name__)


def evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Evaluate the chosen checkpoint of a workdir on a test split, and write its results.

    The model, its schema, prompt template and training categories come from the checkpoint; the
    dataset, the protocols and the places from the config. Results of another dataset than the
    model was trained on have files of their own, `results-<dataset>.json` and so on. On a dataset
    with other attributes, what both know is asked (see `evaluate_cross`), whatever the protocols.

    Returns:
        What `results.json` in the workdir holds then: see docs/architecture.md.

    Raises:
        FileNotFoundError: there is no sound checkpoint, or no such dataset.
        ValueError: a field of the config is wrong, another process works in the workdir, nothing
            says what the dataset's attributes mean in the model's, or no query has a relevant
            image.
    """
    check_config(config)
    workdir = user_path(workdir).resolve()
    with locked_workdir(workdir):
        return _evaluate(config, workdir)


def _evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    chosen: list[Selected] = []  # what the first host has chosen

    def choose() -> int:
        chosen.append(select(workdir, best=config.selection != "latest"))
        return int(chosen[0].path.name)

    step = from_first_host(choose)
    restored = load_model(workdir / FOLDER / str(step), mesh=mesh)
    dataset = open_dataset(prepared_folder(config))
    split = dataset.split("test")
    _warn_of_training_pictures(restored, dataset)
    params, model = flatten(restored.model), restored.model
    encoder = Encoder(model, mesh, config.eval_batch_size, deterministic=config.deterministic)
    image_size = tuple(restored.config["image_size"])
    if split.schema != restored.schema:
        results = {**_names(config, split, restored), "step": step}
        results["checkpoint"] = _reasons(chosen[0], restored) if chosen else {}
        results |= _evaluate_cross(config, restored, split, encoder)
        if jax.process_index() == 0:
            record_start(workdir, evaluated_step=step, dataset=_dataset(split))
            write_json(_named(workdir / RESULTS, _suffix(split, restored)), results)
        return results
    queries, category = categories(split.attributes)
    table = build_text_table(queries, restored.template)

    def encode(texts: Sequence[str]) -> Float[np.ndarray, "sentences dim"]:
        return encoder.texts(params, texts, width=table.tokens.shape[-1])

    images = encoder.split(params, split, image_size, threads=config.data.threads)
    gallery, sentences = GalleryFeatures(images), encode(table.sentences)
    bank = load_bank(restored, encode, temperature=config.posterior_temperature)
    normaliser = bank.normaliser(images)
    trained = {bits.tobytes() for bits in restored.categories}
    first: list[tuple[np.ndarray, np.ndarray]] = []  # of each query its first images

    def keep_first(cosines: Float[np.ndarray, "group gallery"]) -> None:
        for row in cosines:
            indices = first_places(row, _SAVED_RANKS)
            first.append((row[indices], indices))

    protocols: dict[str, Any] = {}
    if whole := [name for name in config.protocols if name in AVERAGE_PRECISION]:
        protocols |= evaluate_rankings(
            sentences,
            gallery,
            np.arange(len(queries)),
            GalleryLabels(category, split.identity, split.camera, split.filename),
            whole,
            traits=split.traits,
            attributes=(queries, split.attributes),
            seen=np.array([bits.tobytes() in trained for bits in queries]),
            posterior=lambda cosines: bank.whole(cosines, normaliser),
            each=keep_first,
        )
    else:
        for _, cosines in gallery.similarities(sentences):
            keep_first(cosines)
    partial = PartialQueries(restored.template, encode, bank, images, split.attributes, gallery)
    protocols |= {
        name: ask()
        for name, ask in (("partial", partial.partial), ("absence", partial.absence))
        if name in config.protocols
    }
    results = {
        **_names(config, split, restored),
        "step": step,
        "checkpoint": _reasons(chosen[0], restored) if chosen else {},
        "posterior": {"temperature": bank.temperature, "categories": len(bank.attributes)},
        "protocols": {name: protocols[name] for name in config.protocols},
        "recognition": partial.recognition(),
        "random": random_ranking(np.bincount(category), len(split)),
    }
    if jax.process_index() == 0:
        record_start(workdir, evaluated_step=step, dataset=_dataset(split))
        name = _suffix(split, restored)
        similarity, ranking = map(np.stack, zip(*first, strict=True))
        if config.save_rankings:
            path = _named(workdir / RANKINGS, name)
            _save_rankings(path, table.sentences, split, similarity, ranking)
        if config.report:
            rankings = _reported(table.sentences, split, category, similarity, ranking, image_size)
            write_report(
                _named(workdir / REPORT, name),
                metrics_path=workdir / METRICS_FILE,
                rankings=rankings,
                partial=protocols.get("partial"),
            )
        write_json(_named(workdir / RESULTS, name), results)
    return results


def _evaluate_cross(
    config: ConfigDict, restored: Restored, split: Split, encoder: Encoder
) -> dict[str, Any]:
    """The results on a dataset with other attributes, from what both know."""
    own, others = (common_meanings(one.schema) for one in (restored, split))
    params = flatten(restored.model)
    encode = functools.partial(encoder.texts, params)
    size = tuple(restored.config["image_size"])
    images = encoder.split(params, split, size, threads=config.data.threads)
    bank = load_bank(restored, encode, temperature=config.posterior_temperature)
    found = evaluate_cross(
        restored.template,
        encode,
        bank,
        images,
        split.attributes,
        split.schema,
        own=own,
        others=others,
    )
    return {
        "posterior": {"temperature": bank.temperature, "categories": len(bank.attributes)},
        "protocols": {"shared": found},
        "random": found["random"],
    }


def _names(config: ConfigDict, split: Split, restored: Restored) -> dict[str, str]:
    """What is evaluated on, and what was trained on."""
    trained = restored.dataset.get("name", "")
    return {"dataset": config.dataset, "trained_on": trained, "split": split.split}


def _dataset(split: Split) -> dict[str, str]:
    return {"name": split.dataset, "checksum": split.checksum}


def _suffix(split: Split, restored: Restored) -> str:
    """What results of another dataset than that of training have in their names."""
    own = split.dataset == restored.dataset.get("name")
    return "" if own else f"-{split.dataset.replace('/', '-')}"


def _warn_of_training_pictures(restored: Restored, dataset: Dataset) -> None:
    """Warn of a dataset whose test split may hold training pictures, by its name or its content."""
    trained, fields = restored.dataset.get("name", ""), restored.config
    held_out = fields.get("validation_categories") and fields.get("selection") != "test"
    if dataset.name != trained and may_share_pictures(trained, dataset.name):
        _log.warning(
            "the test split of %s may hold pictures that the model was trained on: those of %s",
            dataset.name,
            trained,
        )
    elif (
        dataset.name == trained
        and not held_out  # whose checksum is of a part of the training split
        and dataset.contents.get("train") != restored.dataset.get("checksum")
    ):
        _log.warning(
            "%s is not what it was when the model was trained on it: its test split may have "
            "changed, or hold pictures that the model was trained on",
            trained,
        )


def _reasons(chosen: Selected, restored: Restored) -> dict[str, Any]:
    """By what a checkpoint was chosen, and which were passed over."""
    reason = chosen.reason
    if restored.config["selection"] == "test":  # its validation was on the test split
        reason = reason.replace("validation", "test")
    return {"chosen_by": reason, "passed_over": list(chosen.passed_over)}


def _named(path: pathlib.Path, name: str) -> pathlib.Path:
    return path.with_name(f"{path.stem}{name}{path.suffix}")


def results_table(results: Mapping[str, Any]) -> str:
    """Return the results as lines for people, in percent."""

    def line(name: str, scores: Mapping[str, float], columns: Sequence[str] = METRICS) -> str:
        cells = (f"{100 * scores[c]:7.1f}" if c in scores else " " * 7 for c in columns)
        return f"{name:<18}{''.join(cells)}{scores.get('queries', ''):>9}"

    def title(name: str, columns: Sequence[str]) -> str:
        return f"{name:<18}{''.join(f'{c:>7}' for c in columns)}{'queries':>9}"

    protocols = results["protocols"]
    step, chosen = results["step"], results["checkpoint"].get("chosen_by", "")
    lines = [f"{results['dataset']} {results['split']}, checkpoint of step {step} ({chosen}), in %"]
    columns = (*METRICS, "mADM") if "upar" in protocols else METRICS
    lines.append(title("protocol", columns))
    for name in filter(protocols.get, AVERAGE_PRECISION):
        lines.append(line(name, protocols[name], columns))
        for part in ("seen", "unseen", "posterior"):
            if protocols[name].get(part):
                lines.append(line(f"  {part}", protocols[name][part], columns))
    if shared := protocols.get("shared"):
        lines[0] += f"; trained on {results['trained_on']}, {len(shared['attributes'])} shared bits"
        for name in ("posterior", "cosine"):
            lines.append(line(f"by {name}", shared[name] | {"queries": shared["queries"]}))
    lines.append(line("random ranking", results["random"], columns))
    if bits := (shared or {}).get("bits"):
        means = {of: fmean(bit[of] for bit in bits.values()) for of in ("AUC", "base")}
        lines += ["", f"{'shared bits':<30}    AUC   base"]
        for name, bit in {**bits, "mean": means}.items():
            lines.append(f"{name:<30}{100 * bit['AUC']:7.1f}{100 * bit['base']:7.1f}")
    if "partial" in protocols:
        columns = ("R1", "P10", "mAP")
        lines += ["", title("groups said", columns)]
        for name, scores in protocols["partial"]["posterior"].items():
            if name != "bits":
                lines.append(line(name, scores, columns))
                lines.append(line("  cosine", protocols["partial"]["cosine"][name], columns))
                lines.append(line("  random", scores["random"], columns))
    if bits := protocols.get("partial", {}).get("posterior", {}).get("bits"):
        means = {of: fmean(bit[of] for bit in bits.values()) for of in ("P20", "base")}
        lines += ["", line(f"{len(bits)} attributes", means, ("P20", "base"))]
        lines[-1] += "  (P20, share of images)"
    if absences := protocols.get("absence"):
        means = {of: fmean(each[of] for each in absences.values()) for of in ("AUC", "base")}
        lines += [line(f"{len(absences)} absences", means, ("AUC", "base"))]
        lines[-1] += "  (AUC, share of images)"
    lines += [f"passed over: {line}" for line in results["checkpoint"].get("passed_over", ())]
    return "\n".join(lines)


def _save_rankings(
    path: pathlib.Path,
    sentences: tuple[str, ...],
    split: Split,
    similarity: np.ndarray,
    ranking: np.ndarray,
) -> None:
    """Write for each query its sentence, and its first images with their similarities."""
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
            list(split.images(first[query], image_size)),
            category[first[query]] == query,
            similarity[query, :_REPORTED_RANKS].tolist(),
        )
        for query in spread.astype(int)
    ]
