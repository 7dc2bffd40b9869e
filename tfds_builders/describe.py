"""Describes a prepared dataset in numbers and in one picture.

aima describe market1501_attribute --data_dir=… [--picture=…]
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from aima_jax import cli
from aima_jax.attributes import AttributeSchema, attribute_iou
from aima_jax.data import categories
from aima_jax.text import TEMPLATES, PromptTemplate, Wording, build_text_table
from aima_jax.text.tokenizer import END_TOKEN
from tfds_builders import prepared
from tfds_builders.chart import draw
from tfds_builders.prepare import require

# All pairs of more categories than that would not fit into memory.
_MAX_CATEGORIES = 4000
_QUANTILES = {"minimum": 0, "median": 0.5, "mean": None, "maximum": 1}


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """What can be counted in one split.

    Attributes:
        people: how many identities there are; None where the dataset knows none.
        categories: the distinct attribute vectors.
        pictures_per_category: in the order of `categories`.
        frequency: share of the pictures in which each attribute holds.
        seen: which categories occur in training.
        seen_pictures: how many pictures those have.
    """

    pictures: int
    people: int | None
    categories: UInt8[np.ndarray, "category attributes"]
    pictures_per_category: Int[np.ndarray, "category"]
    frequency: Float[np.ndarray, "attributes"]
    seen: Bool[np.ndarray, "category"]
    seen_pictures: int


@dataclasses.dataclass(frozen=True)
class Report:
    """What can be counted in a dataset.

    Attributes:
        co_occurrence: of the pictures with the row's attribute, the share that has the column's;
            NaN in the rows of attributes that no picture has.
        iou: between the training categories, every pair once.
        tokens: tokens of every category's sentence, start and end included, by template.
    """

    dataset: str
    schema: AttributeSchema
    splits: dict[str, SplitReport]
    co_occurrence: Float[np.ndarray, "attributes attributes"]
    iou: Float[np.ndarray, "pairs"]
    tokens: dict[str, Int[np.ndarray, "category"]]


def describe(folder: pathlib.Path) -> Report:
    """Counts what there is in a prepared dataset.

    Raises:
        ValueError: the folder is damaged.
    """
    manifest = prepared.verify(folder)
    schema = AttributeSchema.from_dict(manifest["schema"])
    wording = Wording.from_dict(manifest["wording"])
    labels = {split: prepared.read_labels(folder, split) for split in manifest["counts"]}
    train, _ = categories(labels["train"]["attributes"])
    trained = {row.tobytes() for row in train}
    attributes = np.concatenate([split["attributes"] for split in labels.values()])
    every, _ = categories(attributes)
    return Report(
        dataset=manifest["dataset"],
        schema=schema,
        splits={name: _split_report(split, trained) for name, split in labels.items()},
        co_occurrence=_co_occurrence(attributes),
        iou=_pairwise_iou(train),
        tokens={
            template: _sentence_lengths(every, PromptTemplate(schema, template, wording))
            for template in TEMPLATES
        },
    )


def _split_report(labels: prepared.Labels, trained: set[bytes]) -> SplitReport:
    table, category = categories(labels["attributes"])
    count = np.bincount(category)
    seen = np.array([row.tobytes() in trained for row in table])
    people = len(np.unique(labels["identity"]))
    return SplitReport(
        pictures=len(category),
        people=None if (labels["identity"] < 0).all() else people,
        categories=table,
        pictures_per_category=count,
        frequency=labels["attributes"].mean(0),
        seen=seen,
        seen_pictures=int(count[seen].sum()),
    )


def _co_occurrence(
    attributes: UInt8[np.ndarray, "pictures attributes"],
) -> Float[np.ndarray, "attributes attributes"]:
    bits = attributes.astype(np.float32)
    both = bits.T @ bits
    having = np.diag(both)[:, None]
    return np.divide(both, having, out=np.full_like(both, np.nan), where=having > 0)


def _pairwise_iou(table: UInt8[np.ndarray, "category attributes"]) -> Float[np.ndarray, "pairs"]:
    if len(table) > _MAX_CATEGORIES:
        table = np.random.default_rng(0).choice(table, _MAX_CATEGORIES, replace=False)
    return attribute_iou(table, table)[np.triu_indices(len(table), 1)]


def _sentence_lengths(
    table: UInt8[np.ndarray, "category attributes"], template: PromptTemplate
) -> Int[np.ndarray, "category"]:
    return (build_text_table(table, template).tokens[:, 0] == END_TOKEN).argmax(1) + 1


def lines(report: Report) -> Iterator[str]:
    """The numbers of a report, as text."""
    yield f"{report.dataset}: {report.schema.size} attributes"
    yield ""
    yield _row("", *report.splits)
    splits = report.splits.values()
    yield _row("pictures", *(f"{split.pictures:,}" for split in splits))
    yield _row("people", *("–" if s.people is None else f"{s.people:,}" for s in splits))
    yield _row("categories", *(f"{len(split.categories):,}" for split in splits))
    yield _row("  seen in training", *(f"{split.seen.sum():,}" for split in splits))
    yield _row("  unseen", *(f"{(~split.seen).sum():,}" for split in splits))
    yield _row("pictures of unseen", *(f"{s.pictures - s.seen_pictures:,}" for s in splits))
    yield ""
    yield "pictures per category"
    for name in _QUANTILES:
        values = (_statistic(split.pictures_per_category, name) for split in splits)
        yield _row(f"  {name}", *(f"{value:.4g}" for value in values))
    yield ""
    yield "share of the pictures with the attribute, in percent"
    for position, name in enumerate(report.schema.names):
        yield _row(f"  {name}", *(f"{100 * split.frequency[position]:.1f}" for split in splits))
    yield ""
    yield "tokens per sentence, over all categories, by template"
    yield _row("", *report.tokens)
    for name in _QUANTILES:
        values = (_statistic(tokens, name) for tokens in report.tokens.values())
        yield _row(f"  {name}", *(f"{value:.4g}" for value in values))
    if report.iou.size:  # there are two categories at least
        yield ""
        yield "IoU between training categories"
        for name in _QUANTILES:
            yield _row(f"  {name}", f"{_statistic(report.iou, name):.3f}")


def _row(name: str, *values: str) -> str:
    return f"{name:<28}" + "".join(f"{value:>12}" for value in values)


def _statistic(values: np.ndarray, name: str) -> float:
    quantile = _QUANTILES[name]
    return values.mean() if quantile is None else np.quantile(values, quantile)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `aima describe` takes."""
    parser.add_argument("dataset", help="as given to aima prepare")
    parser.add_argument("--data_dir", help="prepared datasets; ~/tensorflow_datasets by default")
    parser.add_argument("--picture", help="a PNG file; <dataset>.png by default")


def run(options: argparse.Namespace) -> None:
    """Print the numbers of a dataset, and draw them.

    Raises:
        ValueError, OSError: the dataset is not prepared, or damaged; or the picture cannot be
            written.
    """
    picture = pathlib.Path(options.picture or f"{options.dataset.replace('/', '-')}.png")
    report = describe(require(options.dataset, data_dir=options.data_dir))
    print("\n".join(lines(report)))
    draw(report, picture)
    print(f"\ndrawn in {picture}")


if __name__ == "__main__":
    sys.exit(cli.main(["describe", *sys.argv[1:]]))
