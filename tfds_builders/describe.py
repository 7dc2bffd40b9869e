"""Describe a prepared dataset in numbers and in one picture.

aima describe market1501_attribute --data_dir=… [--picture=…]
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from aima_jax import cli
from aima_jax.attributes import AttributeSchema, attribute_iou
from aima_jax.data import categories, open_dataset
from aima_jax.data.prepared import SplitLabels, load_labels
from aima_jax.files import user_path
from aima_jax.text import TEMPLATES, PromptTemplate, TextTable, build_text_table
from aima_jax.text.tokenizer import END_TOKEN
from tfds_builders.prepare import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# All pairs of more categories would not fit in memory.
_MAX_CATEGORIES = 4000
_INCHES_PER_ATTRIBUTE = 0.125
_COLORS = {"train": "#9db8d2", "val": "#e0a458", "test": "#1f4e79"}
_OTHER_COLOR = "#777777"
_BAND = "#f2f2f2"
_QUANTILES = {"minimum": 0, "median": 0.5, "mean": None, "maximum": 1}


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """Statistics of one split.

    Attributes:
        people: number of identities; None if the dataset has none.
        categories: the distinct attribute vectors.
        pictures_per_category: in the order of `categories`.
        frequency: share of the pictures with each attribute.
        seen: which categories occur in training.
        seen_pictures: number of pictures in seen categories.
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
    """Statistics of a dataset.

    Attributes:
        co_occurrence: of the pictures with the row's attribute, the share that has the column's;
            NaN in the rows of attributes that no picture has.
        iou: between the training categories, every pair once.
        tokens: by template, the token count of each category's sentence with start and end tokens.
        longest: the longest sentence of each template.
    """

    dataset: str
    schema: AttributeSchema
    splits: dict[str, SplitReport]
    co_occurrence: Float[np.ndarray, "attributes attributes"]
    iou: Float[np.ndarray, "pairs"]
    tokens: dict[str, Int[np.ndarray, "category"]]
    longest: dict[str, str]


def describe(folder: pathlib.Path) -> Report:
    """Compute the statistics of a prepared dataset.

    Raises:
        ValueError: the folder is damaged.
    """
    dataset = open_dataset(folder)
    labels = {split: load_labels(folder, split) for split in dataset.counts}
    train, _ = categories(labels["train"]["attributes"])
    trained = {row.tobytes() for row in train}
    attributes = np.concatenate([split["attributes"] for split in labels.values()])
    every, _ = categories(attributes)
    tables = {
        name: build_text_table(every, PromptTemplate(dataset.schema, name, dataset.wording))
        for name in TEMPLATES
    }
    return Report(
        dataset=dataset.name,
        schema=dataset.schema,
        splits={name: _split_report(split, trained) for name, split in labels.items()},
        co_occurrence=_co_occurrence(attributes),
        iou=_pairwise_iou(train[:, dataset.schema.presences]),
        tokens={name: _sentence_lengths(table) for name, table in tables.items()},
        longest={name: max(table.sentences, key=len) for name, table in tables.items()},
    )


def _split_report(labels: SplitLabels, trained: set[bytes]) -> SplitReport:
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


def _sentence_lengths(table: TextTable) -> Int[np.ndarray, "category"]:
    return (table.tokens[:, 0] == END_TOKEN).argmax(1) + 1


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
    yield ""
    yield "longest sentence, by template"
    for name, text in report.longest.items():
        yield f"  {name}: {text}"
    if report.iou.size:  # at least two categories
        yield ""
        yield "IoU between training categories"
        for name in _QUANTILES:
            yield _row(f"  {name}", f"{_statistic(report.iou, name):.3f}")


def _row(name: str, *values: str) -> str:
    return f"{name:<28}" + "".join(f"{value:>12}" for value in values)


def _statistic(values: np.ndarray, name: str) -> float:
    quantile = _QUANTILES[name]
    return values.mean() if quantile is None else np.quantile(values, quantile)


def draw(report: Report, path: pathlib.Path) -> None:
    """Plot a report into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = max(6.0, _INCHES_PER_ATTRIBUTE * report.schema.size)
    figure = Figure(figsize=(5 + 1.5 * side, side + 4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(3 + side / 2, side), height_ratios=(side, 2.6))
    order = _by_group(report.schema)
    _draw_frequencies(figure.add_subplot(grid[:, 0]), report, order)
    _draw_co_occurrence(figure.add_subplot(grid[0, 1]), report, order)
    _draw_iou(figure.add_subplot(grid[1, 1]), report)
    counts = "   ".join(
        f"{name}: {split.pictures:,} pictures, {len(split.categories):,} categories"
        for name, split in report.splits.items()
    )
    figure.suptitle(f"{report.dataset}\n{counts}", fontsize=9 + side / 2)
    figure.savefig(path, dpi=110, format="png")


def _by_group(schema: AttributeSchema) -> list[int]:
    """Attribute positions sorted by group: some label files interleave the groups."""
    return [schema.names.index(bit) for group in schema.groups for bit in group.bits]


def _draw_frequencies(axes: "Axes", report: Report, order: list[int]) -> None:
    rows = np.arange(len(order))
    _shade_groups(axes, report.schema)
    for name, split in report.splits.items():
        percent = 100 * split.frequency[order]
        color = _COLORS.get(name, _OTHER_COLOR)
        if name == "train":
            axes.barh(rows, percent, height=0.7, color=color, label=name)
        else:
            axes.plot(percent, rows, "o", markersize=4, color=color, label=name)
    axes.set_yticks(rows, [report.schema.names[position] for position in order], fontsize=7.5)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("pictures with the attribute, %")
    axes.grid(axis="x", color="#cccccc", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", framealpha=1)
    axes.set_title("Attribute frequencies", fontsize=11)


def _shade_groups(axes: "Axes", schema: AttributeSchema) -> None:
    """Put a band behind every other group."""
    start = 0
    for number, group in enumerate(schema.groups):
        stop = start + len(group.bits)
        if number % 2:
            axes.axhspan(start - 0.5, stop - 0.5, color=_BAND, zorder=0)
        start = stop


def _draw_co_occurrence(axes: "Axes", report: Report, order: list[int]) -> None:
    names = [report.schema.names[position] for position in order]
    percent = 100 * report.co_occurrence[np.ix_(order, order)]
    image = axes.imshow(percent, cmap="magma_r", vmin=0, vmax=100, interpolation="nearest")
    ticks = np.arange(len(order))
    axes.set_xticks(ticks, names, rotation=90, fontsize=6.5)
    axes.set_yticks(ticks, names, fontsize=6.5)
    axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01, label="%")
    axes.set_title("Of the pictures with the row's attribute, the share with the column's")


def _draw_iou(axes: "Axes", report: Report) -> None:
    axes.hist(report.iou, bins=np.linspace(0, 1, 51).tolist(), color=_COLORS["train"])
    if report.iou.size:
        mean = report.iou.mean()
        axes.axvline(mean, color=_COLORS["test"], label=f"mean {mean:.2f}")
        axes.legend(loc="upper right")
    axes.set_xlim(0, 1)
    axes.set_xlabel("IoU of the attributes of two training categories")
    axes.set_ylabel("pairs")
    axes.set_title("Similarity of the categories", fontsize=11)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `aima describe`."""
    parser.add_argument("dataset", help="as given to aima prepare")
    parser.add_argument("--data_dir", help="prepared datasets; as for aima prepare")
    parser.add_argument("--picture", help="PNG file to write; <dataset>.png by default")


def run(options: argparse.Namespace) -> None:
    """Print and plot the statistics of a dataset.

    Raises:
        ValueError, OSError: the dataset is not prepared or is damaged, or the picture cannot be
            written.
    """
    picture = user_path(options.picture or f"{options.dataset.replace('/', '-')}.png")
    if not picture.parent.is_dir():
        raise FileNotFoundError(f"--picture={picture}: no such folder: {picture.parent}")
    report = describe(require(options.dataset, data_dir=options.data_dir))
    print("\n".join(lines(report)))
    draw(report, picture)
    print(f"\nplot written to {picture}")


if __name__ == "__main__":
    sys.exit(cli.main(["describe", *sys.argv[1:]]))
