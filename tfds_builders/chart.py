"""Draws the report on a dataset: attribute frequencies, which occur together, and the IoU."""

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from aima_jax.attributes import AttributeSchema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tfds_builders.describe import Report

_INCHES_PER_ATTRIBUTE = 0.125
_COLORS = {"train": "#9db8d2", "val": "#e0a458", "test": "#1f4e79"}
_OTHER_COLOR = "#777777"
_BAND = "#f2f2f2"


def draw(report: "Report", path: pathlib.Path) -> None:
    """Writes the picture of a report as a PNG file."""
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
    """The attributes in the order of the schema's groups: some files mix them."""
    return [schema.names.index(bit) for group in schema.groups for bit in group.bits]


def _draw_frequencies(axes: "Axes", report: "Report", order: list[int]) -> None:
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
    """Puts a band behind every other group."""
    start = 0
    for number, group in enumerate(schema.groups):
        stop = start + len(group.bits)
        if number % 2:
            axes.axhspan(start - 0.5, stop - 0.5, color=_BAND, zorder=0)
        start = stop


def _draw_co_occurrence(axes: "Axes", report: "Report", order: list[int]) -> None:
    names = [report.schema.names[position] for position in order]
    percent = 100 * report.co_occurrence[np.ix_(order, order)]
    image = axes.imshow(percent, cmap="magma_r", vmin=0, vmax=100, interpolation="nearest")
    ticks = np.arange(len(order))
    axes.set_xticks(ticks, names, rotation=90, fontsize=6.5)
    axes.set_yticks(ticks, names, fontsize=6.5)
    axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01, label="%")
    axes.set_title("Of the pictures with the row's attribute, the share with the column's")


def _draw_iou(axes: "Axes", report: "Report") -> None:
    axes.hist(report.iou, bins=np.linspace(0, 1, 51), color=_COLORS["train"])
    if report.iou.size:
        mean = report.iou.mean()
        axes.axvline(mean, color=_COLORS["test"], label=f"mean {mean:.2f}")
        axes.legend(loc="upper right")
    axes.set_xlim(0, 1)
    axes.set_xlabel("IoU of the attributes of two training categories")
    axes.set_ylabel("pairs")
    axes.set_title("How alike the categories are", fontsize=11)
