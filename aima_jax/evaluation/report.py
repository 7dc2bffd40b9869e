"""Figures of a report: curves of a run, and search results."""

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from aima_jax.checkpoint import best_first
from aima_jax.data.pictures import open_picture, resize
from aima_jax.files import atomic_write
from aima_jax.losses import LOSSES
from aima_jax.workdir import read_metrics

Picture = Image.Image | UInt8[np.ndarray, "_height _width 3"]

_GREEN, _RED, _GRAY = "#1a8f4a", "#d03b3b", "#9aa1a9"
_INK, _PALE_INK = "#1d2126", "#5c646d"
_TILES_A_ROW = 10
_TILE_HEIGHT = 256
_TILE_WIDTHS = (84, 256)  # minimum and maximum; wide enough for a caption
_FRAME = 6
_GAP = 12
_MARGIN = 24
_MIN_TEXT_WIDTH = 720
_SENTENCE_SIZE, _CAPTION_SIZE = 24, 16

# Okabe and Ito's colour-blind safe palette.
_SCORES = {
    "val/R1": ("Rank-1", "#0072b2"),
    "val/R5": ("Rank-5", "#56b4e9"),
    "val/R10": ("Rank-10", "#009e73"),
    "val/mAP": ("mAP", "#d55e00"),
    "val/mINP": ("mINP", "#cc79a7"),
}
_LINE, _PALE_LINE = _SCORES["val/R1"][1], _SCORES["val/R5"][1]
_SMOOTHED_POINTS = 30  # curves with more points also get a running mean


class Ranking(NamedTuple):
    """A sentence and its top-ranked images: the arguments of `draw_ranking`."""

    sentence: str
    images: Sequence[Picture]
    correct: Sequence[bool] | None
    scores: Sequence[float]


def write_report(
    folder: str | pathlib.Path,
    *,
    metrics_path: str | pathlib.Path,
    rankings: Sequence[Ranking],
    partial: Mapping[str, Any] | None = None,
) -> None:
    """Write figures into a folder, each only if there is data for it.

    They are `curves.png`, `rankings.png`, `partial.png` and `attributes.png`.

    Args:
        folder: created if missing.
        metrics_path: the run's `metrics.jsonl`.
        rankings: of some queries, each with its top-ranked images.
        partial: results of protocol `partial`, by scoring.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "rankings.png": _draw_page(rankings),
        "curves.png": _draw_curves(read_metrics(pathlib.Path(metrics_path))),
        "partial.png": _draw_partial(partial or {}),
        "attributes.png": _draw_attributes(partial or {}),
    }
    for name, picture in pictures.items():
        if picture is None:
            (folder / name).unlink(missing_ok=True)
        else:
            save_picture(picture, folder / name)


def save_picture(picture: Image.Image, path: pathlib.Path) -> None:
    """Write a PNG file atomically."""
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")


def draw_ranking(
    sentence: str,
    images: Sequence[Picture],
    *,
    correct: Sequence[bool] | None = None,
    scores: Sequence[float],
) -> Image.Image:
    """Draw a sentence above its top-ranked images, in rows of ten.

    Args:
        sentence: wrapped if long.
        images: best first, of any size.
        correct: which images match: framed green, the others red; None: all gray.
        scores: shown below the images.

    Raises:
        ValueError: there are no images, or the numbers of images, flags and scores differ.
    """
    counts = {len(images), len(scores)} | ({len(correct)} if correct is not None else set())
    if len(counts) > 1 or not len(images):
        raise ValueError(
            f"{len(images)} images, {len(scores)} scores and "
            f"{'no' if correct is None else len(correct)} flags; expected as many of each, over 0"
        )
    tiles = [_fit(image) for image in images]
    width = max(_TILE_WIDTHS[0], max(tile.width for tile in tiles)) + 2 * _FRAME
    height = _TILE_HEIGHT + 2 * _FRAME
    columns = min(len(tiles), _TILES_A_ROW)
    text_width = max(_MIN_TEXT_WIDTH, columns * (width + _GAP) - _GAP)

    font, caption_font = _font(_SENTENCE_SIZE), _font(_CAPTION_SIZE)
    lines = _wrap(sentence, font, text_width)
    line_height = round(1.35 * _SENTENCE_SIZE)
    row_height = height + round(2.2 * _CAPTION_SIZE)
    top = _MARGIN + len(lines) * line_height + _GAP
    rows = math.ceil(len(tiles) / columns)
    canvas = Image.new("RGB", (text_width + 2 * _MARGIN, top + rows * row_height), "white")
    pen = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + row * line_height), line, _INK, font)
    for place, (tile, score) in enumerate(zip(tiles, scores, strict=True)):
        flag = None if correct is None else bool(correct[place])
        row, column = divmod(place, columns)
        x, y = _MARGIN + column * (width + _GAP), top + row * row_height
        color, mark = {None: (_GRAY, ""), True: (_GREEN, " ✓"), False: (_RED, " ✗")}[flag]
        pen.rectangle((x, y, x + width - 1, y + height - 1), color)
        inside = (x + _FRAME, y + _FRAME, x + width - _FRAME - 1, y + height - _FRAME - 1)
        pen.rectangle(inside, "#eceef0")
        canvas.paste(tile, (x + (width - tile.width) // 2, y + (height - tile.height) // 2))
        below = y + height + _CAPTION_SIZE // 3
        pen.text((x, below), f"{place + 1}{mark}", color if mark else _PALE_INK, caption_font)
        pen.text((x + width, below), f"{score:z.2f}", _PALE_INK, caption_font, anchor="ra")
    return canvas


def _draw_page(rankings: Sequence[Ranking]) -> Image.Image | None:
    """Stack rankings under a line that explains them."""
    if not rankings:
        return None
    pictures = [
        draw_ranking(sentence, images, correct=correct, scores=scores)
        for sentence, images, correct, scores in rankings
    ]
    width = max(picture.width for picture in pictures)
    font = _font(_CAPTION_SIZE)
    legend = _wrap(
        "Sentences and the images ranked first, best on the left, with their cosine similarity. "
        "✓ green: has all attributes of the sentence and no others; ✗ red: differs.",
        font,
        width - 2 * _MARGIN,
    )
    top = _MARGIN + len(legend) * round(1.35 * _CAPTION_SIZE)
    page = Image.new("RGB", (width, top + sum(picture.height for picture in pictures)), "white")
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), "\n".join(legend), _PALE_INK, font)
    for picture in pictures:
        page.paste(picture, (0, top))
        pen.line((_MARGIN, top, width - _MARGIN, top), "#d5d9dd")
        top += picture.height
    return page


def _draw_curves(rows: Sequence[Mapping[str, int | float]]) -> Image.Image | None:
    """Draw a panel for each logged loss, and one for all validation metrics."""
    titles = {
        "train/loss": "Loss (weighted sum)",
        **{f"train/{name}": loss.title for name, loss in LOSSES.items()},
        "train/map_accuracy": "MAP accuracy",
        "train/learning_rate": "Learning rate",
    }
    curves = {name: _series(rows, name) for name in (*titles, *_SCORES)}
    curves = {name: curve for name, curve in curves.items() if curve.size}
    panels = [name for name in titles if name in curves]
    scores = [name for name in _SCORES if name in curves]
    count = len(panels) + bool(scores)
    if not count:
        return None
    figure, axes = _figure(count)
    for axis, name in zip(axes, panels, strict=False):
        _plot(axis, curves[name])
        axis.set_title(titles[name])
    if scores:
        _plot_scores(axes[-1], {name: curves[name] for name in scores})
    for axis in axes:
        axis.set_xlabel("step", color=_PALE_INK)
        axis.locator_params(axis="x", nbins=6, integer=True)
        axis.ticklabel_format(axis="y", scilimits=(-3, 4))
    return _rendered(figure)


def _draw_partial(partial: Mapping[str, Any]) -> Image.Image | None:
    """Draw the metrics over the number of groups in a description."""
    groups = [name for name in partial.get("posterior", {}) if name != "bits"]
    if not groups:
        return None
    figure, axes = _figure(3)
    for axis, metric in zip(axes, ("R1", "P10", "mAP"), strict=True):
        lines = {
            "by posterior": [partial["posterior"][name][metric] for name in groups],
            "by cosine": [partial["cosine"][name][metric] for name in groups],
            "random": [partial["posterior"][name]["random"][metric] for name in groups],
        }
        styles = ((_LINE, "o-"), (_SCORES["val/mAP"][1], "o-"), (_GRAY, ":"))
        for (label, values), (color, style) in zip(lines.items(), styles, strict=True):
            axis.plot(groups, [100 * v for v in values], style, color=color, label=label, ms=4)
        axis.set_title({"R1": "Rank-1, %", "P10": "Precision at 10, %", "mAP": "mAP, %"}[metric])
        axis.set_xlabel("groups of attributes in the query", color=_PALE_INK)
        axis.set_ylim(0, 105)
    axes[0].legend(fontsize=8, frameon=False)
    return _rendered(figure)


def _draw_attributes(partial: Mapping[str, Any]) -> Image.Image | None:
    """Draw the precision at 20 for each attribute, and its share of the images."""
    bits = partial.get("posterior", {}).get("bits")
    if not bits:
        return None
    names = sorted(bits, key=lambda bit: bits[bit]["P20"])
    figure, (axis,) = _figure(1, size=(7.5, 1.2 + 0.19 * len(names)))
    for scoring, color, height in (("posterior", _LINE, 0.7), ("cosine", _PALE_LINE, 0.3)):
        values = [100 * partial[scoring]["bits"][name]["P20"] for name in names]
        axis.barh(names, values, height, color=color, label=f"by {scoring}")
    base = [100 * bits[name]["base"] for name in names]
    axis.plot(base, names, "|", color=_INK, markersize=9, label="share of images that have it")
    axis.set_title("Precision at 20 for one attribute, %")
    axis.set_xlim(0, 100)
    axis.margins(y=0.01)
    figure.legend(fontsize=8, frameon=False, ncols=3, loc="outside lower center")  # off the bars
    return _rendered(figure)


def _figure(count: int, *, size: tuple[float, float] = (4.6, 3.1)) -> tuple[Any, list[Any]]:
    """A figure with panels in rows of three; `size` of a panel in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(count, 3)
    lines = math.ceil(count / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure((size[0] * columns, size[1] * lines), dpi=110, layout=layout)
    axes = [figure.add_subplot(lines, columns, place + 1) for place in range(count)]
    for axis in axes:
        axis.grid(color="#e6e9ec", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#b5bbc2")
        axis.tick_params(colors=_PALE_INK, labelsize=9)
    return figure, axes


def _rendered(figure: Any) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _plot(axis: Any, curve: Float[np.ndarray, "2 points"]) -> None:
    steps, values = curve
    if values.size <= _SMOOTHED_POINTS:
        axis.plot(steps, values, color=_LINE, marker="o", markersize=3)
        return
    axis.plot(steps, values, color=_LINE, alpha=0.3, linewidth=1)
    window = max(3, values.size // 25)
    mean = np.convolve(values, np.full(window, 1 / window), "valid")
    axis.plot(np.convolve(steps, np.full(window, 1 / window), "valid"), mean, color=_LINE)


def _plot_scores(axis: Any, curves: Mapping[str, Float[np.ndarray, "2 points"]]) -> None:
    for name, (steps, values) in curves.items():
        label, color = _SCORES[name]
        axis.plot(steps, 100 * values, color=color, label=label, marker="o", markersize=3)
    title = "Validation, %"
    if "val/R1" in curves:
        steps, values = curves["val/R1"]
        scores = dict(zip(map(int, steps), values, strict=True))
        best = best_first(scores)[0]
        axis.plot(best, 100 * scores[best], "*", color=_SCORES["val/R1"][1], markersize=13)
        title += f": best Rank-1 {scores[best]:.1%} at step {best}"
    axis.set_title(title)
    axis.set_ylim(0, 1.35 * max(1, axis.get_ylim()[1]))  # leaves room for the legend
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= 100])
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="upper left")


def _series(rows: Sequence[Mapping[str, int | float]], name: str) -> Float[np.ndarray, "2 points"]:
    """Steps and values of a metric, only finite ones."""
    points = [(row["step"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
    return np.array(points, float).reshape(-1, 2).T


def _fit(picture: Picture) -> Image.Image:
    """Scale a picture to the height of a tile, or to its maximum width if it is wide."""
    image = open_picture(picture)
    scale = min(_TILE_HEIGHT / image.height, _TILE_WIDTHS[1] / image.width)
    size = (max(1, round(scale * image.height)), max(1, round(scale * image.width)))
    return Image.fromarray(resize(image, size))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, within words only if necessary."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, has the check marks and most alphabets."""
    import matplotlib

    path = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size)
