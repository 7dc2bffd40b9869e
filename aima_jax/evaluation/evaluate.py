"""From a checkpoint to results.json: encode, rank by each protocol, report."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
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
from aima_jax.evaluation.posterior import Bank, EncodeTexts, load_bank
from aima_jax.evaluation.protocols import AVERAGE_PRECISION, GalleryLabels, evaluate_rankings
from aima_jax.evaluation.report import Ranking, write_report
from aima_jax.evaluation.similarity import GalleryFeatures, first_places
from aima_jax.fields import check_config
from aima_jax.files import atomic_write, user_path, write_json
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh
from aima_jax.text import tokenize
from aima_jax.text.table import table_width
from aima_jax.workdir import METRICS_FILE, RANKINGS, REPORT, RESULTS, locked_workdir, record_start

_REPORTED_QUERIES = 12
_REPORTED_RANKS = 10
_SAVED_RANKS = 100

_log = logging.getLogger(__name__)


def evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Evaluate the selected checkpoint of a workdir on a test split, and write its results.

    The model, its schema, prompt template and training categories come from the checkpoint; the
    dataset, the protocols and the paths from the config. Results on a dataset other than the
    training dataset have files of their own, `results-<dataset>.json` and so on. A dataset with
    other attributes is queried in the shared ones (see `evaluate_cross`), whatever the protocols.

    Returns:
        The contents of `results.json` in the workdir: see docs/architecture.md.

    Raises:
        FileNotFoundError: there is no sound checkpoint, or no such dataset.
        ValueError: a field of the config is invalid, another process is using the workdir, no table
            maps the dataset's attributes to the model's, or no query has a relevant image.
    """
    check_config(config)
    workdir = user_path(workdir).resolve()
    with locked_workdir(workdir):
        return _evaluate(config, workdir)


def _evaluate(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    chosen: list[Selected] = []  # on the first host

    def choose() -> int:
        chosen.append(select(workdir, best=config.selection != "latest"))
        return int(chosen[0].path.name)

    step = from_first_host(choose)
    restored = load_model(workdir / FOLDER / str(step), mesh=mesh)
    dataset = open_dataset(prepared_folder(config))
    split = dataset.split("test")
    _warn_of_training_pictures(restored, dataset)
    asked = _encode(config, restored, split, mesh)
    same_schema = split.schema == restored.schema
    results = {
        "dataset": config.dataset,
        "trained_on": restored.dataset.get("name", ""),
        "split": split.split,
        "step": step,
        "checkpoint": _reasons(chosen[0], restored) if chosen else {},
        "posterior": {
            "temperature": asked.bank.temperature,
            "categories": len(asked.bank.attributes),
        },
        **(_ask_own(config, workdir, asked) if same_schema else _ask_shared(asked)),
    }
    if jax.process_index() == 0:
        data = {"name": split.dataset, "checksum": split.checksum}
        record_start(workdir, evaluated_step=step, dataset=data)
        write_json(asked.named(workdir / RESULTS), results)
    return results


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A model and the test split that it is evaluated on."""

    restored: Restored
    split: Split
    encode: EncodeTexts
    images: Float[np.ndarray, "gallery dim"]
    bank: Bank

    def named(self, path: pathlib.Path) -> pathlib.Path:
        """The path of a result file, with the dataset's name unless it is the training dataset."""
        if self.split.dataset == self.restored.dataset.get("name"):
            return path
        return path.with_name(f"{path.stem}-{self.split.dataset.replace('/', '-')}{path.suffix}")


def _encode(config: ConfigDict, restored: Restored, split: Split, mesh: Mesh) -> _Asked:
    params = flatten(restored.model)
    encoder = Encoder(
        restored.model, mesh, config.eval_batch_size, deterministic=config.deterministic
    )
    known = [restored.template.render(bits).text for bits in restored.categories]
    encode = functools.partial(encoder.texts, params, width=table_width(tokenize(known)))
    image_size = tuple(restored.config["image_size"])
    images = encoder.split(params, split, image_size, threads=config.data.threads)
    bank = load_bank(restored, encode, temperature=config.posterior_temperature)
    return _Asked(restored, split, encode, images, bank)


def _ask_own(config: ConfigDict, workdir: pathlib.Path, asked: _Asked) -> dict[str, Any]:
    """The results on a dataset with the model's own attributes; draws the report."""
    restored, split, bank, images = asked.restored, asked.split, asked.bank, asked.images
    queries, category = categories(split.attributes)
    texts = [restored.template.render(bits).text for bits in queries]
    gallery, sentences = GalleryFeatures(images), asked.encode(texts)
    normaliser = bank.normaliser(images)
    trained = {bits.tobytes() for bits in restored.categories}
    first: list[tuple[np.ndarray, np.ndarray]] = []  # the top images of each query

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
    partial = PartialQueries(
        restored.template, asked.encode, bank, images, split.attributes, gallery
    )
    protocols |= {
        name: ask()
        for name, ask in (("partial", partial.partial), ("absence", partial.absence))
        if name in config.protocols
    }
    if jax.process_index() == 0:
        similarity, ranking = map(np.stack, zip(*first, strict=True))
        if config.save_rankings:
            _save_rankings(asked.named(workdir / RANKINGS), texts, split, similarity, ranking)
        if config.report:
            size = tuple(restored.config["image_size"])
            write_report(
                asked.named(workdir / REPORT),
                metrics_path=workdir / METRICS_FILE,
                rankings=_reported(texts, split, category, similarity, ranking, size),
                partial=protocols.get("partial"),
            )
    return {
        "protocols": {name: protocols[name] for name in config.protocols},
        "recognition": partial.recognition(),
        "random": random_ranking(np.bincount(category), len(split)),
    }


def _ask_shared(asked: _Asked) -> dict[str, Any]:
    """The results on a dataset with other attributes, in the shared ones."""
    restored, split = asked.restored, asked.split
    found = evaluate_cross(
        restored.template,
        asked.encode,
        asked.bank,
        asked.images,
        split.attributes,
        split.schema,
        own=common_meanings(restored.schema),
        others=common_meanings(split.schema),
    )
    return {"protocols": {"shared": found}, "random": found["random"]}


def _warn_of_training_pictures(restored: Restored, dataset: Dataset) -> None:
    """Warn if the test split may contain training pictures, by the dataset's name or content."""
    trained, fields = restored.dataset.get("name", ""), restored.config
    held_out = fields.get("validation_categories") and fields.get("selection") != "test"
    if dataset.name != trained and may_share_pictures(trained, dataset.name):
        _log.warning(
            "the test split of %s may contain training pictures of the model: those of %s",
            dataset.name,
            trained,
        )
    elif (
        dataset.name == trained
        and not held_out  # then the checksum covers only a part of the training split
        and dataset.contents.get("train") != restored.dataset.get("checksum")
    ):
        _log.warning(
            "%s has changed since the model was trained on it: its test split may be different, or "
            "contain training pictures of the model",
            trained,
        )


def _reasons(chosen: Selected, restored: Restored) -> dict[str, Any]:
    """Why the checkpoint was selected, and which ones were passed over."""
    reason = chosen.reason
    if restored.config["selection"] == "test":  # its validation was on the test split
        reason = reason.replace("validation", "test")
    return {"chosen_by": reason, "passed_over": list(chosen.passed_over)}


def results_table(results: Mapping[str, Any]) -> str:
    """Return the results as a text table, in percent."""

    def line(name: str, scores: Mapping[str, Any], columns: Sequence[str] = METRICS) -> str:
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
    sentences: list[str],
    split: Split,
    similarity: np.ndarray,
    ranking: np.ndarray,
) -> None:
    """Write the sentence of each query, and its top images with their similarities."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, query=sentences, filename=split.filename[ranking], similarity=similarity)


def _reported(
    sentences: list[str],
    split: Split,
    category: np.ndarray,
    similarity: np.ndarray,
    ranking: np.ndarray,
    image_size: tuple[int, int],
) -> list[Ranking]:
    """Twelve evenly spaced queries with their top-ranked images."""
    spread = np.linspace(0, len(sentences) - 1, min(_REPORTED_QUERIES, len(sentences)))
    first = ranking[:, :_REPORTED_RANKS]
    return [
        Ranking(
            sentences[query],
            list(split.images(first[query], image_size)),
            (category[first[query]] == query).tolist(),
            similarity[query, :_REPORTED_RANKS].tolist(),
        )
        for query in spread.astype(int)
    ]
