"""Gallery images per second through the image tower, beside transformers' CLIP.

    python benchmarks/encode.py [--batch=32] [--rounds=7] [--dtype=float32]

Equal work: ViT-B/16 at 384×128 with the same weights, from normalised pictures in memory to global
features, whose largest difference is shown. Ours starts from uint8, so it normalises as well, and
scales the features to length 1. The peer is `CLIPModel.get_image_features`, as it comes from
transformers, in PyTorch's inference mode; on a GPU it is compiled and under autocast.

Both take turns, each in a process of its own; the median counts. Memory is the highest resident set
of the process, libraries and compiling included; on a GPU it is the device's.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

import numpy as np
from contest import Contender, do_once


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7, help="batches of each after the first")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        do_once("ours:write_encoding", batch=args.batch, folder=folder)
        options = {"dtype": args.dtype}
        with (
            Contender("ours:encoding", batch=args.batch, **options) as ours,
            Contender("peer:encoding", folder=folder, **options) as theirs,
        ):
            contenders = {"ours": ours, "transformers": theirs}
            answers = {name: [] for name in contenders}
            for _ in range(1 + args.rounds):
                for name, contender in contenders.items():
                    answers[name].append(contender.turn())

    rates = {}
    print(f"batch {args.batch:<9}{'s':>8}{'images/s':>10}{'peak GB':>9}{'first s':>9}")
    for name, given in answers.items():
        seconds = statistics.median(answer["seconds"] for answer in given[1:])
        rates[name] = args.batch / seconds
        peak = max(answer["bytes"] for answer in given) / 1e9
        print(
            f"{name:<15}{seconds:>8.3f}{rates[name]:>10.1f}{peak:>9.2f}{given[0]['seconds']:>9.1f}"
        )
    print(f"ratio {rates['ours'] / rates['transformers']:.2f}")
    ours, theirs = (given[-1]["features"] for given in answers.values())
    print(f"features of length 1 differ by at most {np.abs(ours - theirs).max():.1e}")


if __name__ == "__main__":
    main()
