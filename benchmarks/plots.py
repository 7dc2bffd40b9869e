"""Draw how time and memory grow, from the numbers that the benchmarks write.

    python benchmarks/train_step.py --batches 4 8 16 --rounds=2 --json=batch.json
    python benchmarks/train_step.py --alone --rounds=2 --length=40 --json=40.json   # and 58, 77
    python benchmarks/retrieval.py --parts growth --json=gallery.json
    python benchmarks/plots.py --batch=batch.json --lengths 40.json 58.json 77.json \\
        --gallery=gallery.json --out=docs/images
"""

import argparse
import json
import pathlib
from collections.abc import Mapping

from matplotlib.figure import Figure


def draw(
    path: pathlib.Path, label: str, series: Mapping[str, Mapping[int, dict[str, float]]]
) -> None:
    """Two charts side by side, seconds and gigabytes against the numbers in each series."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, key, unit in zip(figure.subplots(1, 2), ("seconds", "GB"), ("s", "GB"), strict=True):
        for name, points in series.items():
            axes.plot(list(points), [point[key] for point in points.values()], "o-", label=name)
        axes.set(xlabel=label, ylabel=unit, ylim=(0, None), xlim=(0, None))
        if len(series) > 1:
            axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw the figures whose numbers are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=pathlib.Path)
    parser.add_argument("--lengths", type=pathlib.Path, nargs="+", help="each named by its length")
    parser.add_argument("--gallery", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/images"))
    args = parser.parse_args()
    if args.batch:
        found = json.loads(args.batch.read_text())
        names = dict.fromkeys(name for results in found.values() for name in results)
        series = {
            name: {int(batch): results[name] for batch, results in found.items()} for name in names
        }
        draw(args.out / "step_by_batch.png", "images a step", series)
    if args.lengths:
        points = {
            int(path.stem): next(iter(json.loads(path.read_text()).values()))["ours"]
            for path in args.lengths
        }
        draw(args.out / "step_by_length.png", "tokens a sentence", {"ours": points})
    if args.gallery:
        found = json.loads(args.gallery.read_text())
        points = {int(count): value for count, value in found.items()}
        draw(args.out / "ranking_by_gallery.png", "images in the gallery", {"ours": points})


if __name__ == "__main__":
    main()
