"""Memory and time of the losses that compare all with all, whole and in chunks of rows.

    python benchmarks/losses.py [--batches 1024 2048 4096] [--chunk-size=256]
    python benchmarks/losses.py --batches 32768 --forms chunked --calls=1

Equal work: value and gradient of one loss in float32, for features of 512 dimensions, 2,000
categories and 35 attributes. Whole and chunked take turns, each in a process of its own.

Memory is the highest resident set above that before the batch is made: the batch, its gradients,
the compiled program and all that it needs meanwhile. On an accelerator it is the device's own peak.
The fastest of `--calls` calls after compilation counts. CPU seconds, summed over threads, say what
a machine that is busy otherwise would do.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import psutil

from aima_jax import losses

DIM, CATEGORIES, ATTRIBUTES = 512, 2000, 35
LOSSES = ("info_nce", "sdm", "attribute_iou")
FORMS = ("whole", "chunked")


def compute(images, texts, labels, attributes, *, name: str, chunk_size: int | None):
    if name == "info_nce":
        return losses.info_nce(images, texts, temperature=0.02, chunk_size=chunk_size)
    if name == "sdm":
        return losses.similarity_distribution_matching(
            images, texts, labels, temperature=0.02, chunk_size=chunk_size
        )
    return losses.attribute_iou_contrastive(
        texts, attributes, temperature=0.1, chunk_size=chunk_size
    )


def draw(batch: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    images, texts = (rng.standard_normal((batch, DIM), np.float32) for _ in range(2))
    sets = rng.integers(0, 2, (CATEGORIES, ATTRIBUTES), np.uint8)
    labels = rng.integers(0, CATEGORIES, batch, np.int32)
    return images, texts, labels, sets[labels]


def peak_bytes() -> int:
    if jax.default_backend() != "cpu":
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    with open("/proc/self/status") as file:
        marks = dict(line.split(":", 1) for line in file)
    return int(marks["VmHWM"].split()[0]) * 1024


def measure(name: str, batch: int, chunk_size: int | None, calls: int) -> dict[str, float]:
    """Run one loss in this process; megabytes, seconds and the value."""
    on_host = jax.default_backend() == "cpu"
    before = psutil.Process().memory_info().rss if on_host else 0
    arguments = jax.device_put(draw(batch))
    loss = partial(compute, name=name, chunk_size=chunk_size)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments).compile()
    times, value = [], float("nan")
    for _ in range(calls):
        start, start_cpu = time.perf_counter(), time.process_time()
        value, _ = jax.block_until_ready(run(*arguments))
        times.append((time.perf_counter() - start, time.process_time() - start_cpu))
    seconds, cpu_seconds = map(min, zip(*times, strict=True))
    megabytes = (peak_bytes() - before) / 1e6
    return {"MB": megabytes, "s": seconds, "CPU s": cpu_seconds, "value": float(value)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--chunk-size", type=int, default=256)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--measure", metavar="JSON", help="arguments of one measurement")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(**json.loads(args.measure))))
        return

    print(f"{'loss':<15}{'batch':>7} {'form':<9}{'MB':>8}{'s':>9}{'CPU s':>9}{'value':>12}")
    for name in args.losses:
        for batch in args.batches:
            for form in args.forms:
                chunk_size = args.chunk_size if form == "chunked" else None
                task = {"name": name, "batch": batch, "chunk_size": chunk_size, "calls": args.calls}
                command = [sys.executable, __file__, "--measure", json.dumps(task)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                result = json.loads(done.stdout)
                print(
                    f"{name:<15}{batch:>7} {form:<9}{result['MB']:>8.0f}{result['s']:>9.3f}"
                    f"{result['CPU s']:>9.3f}{result['value']:>12.6f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
