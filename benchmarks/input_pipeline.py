"""Pictures per second from a prepared dataset to batches, beside a PyTorch DataLoader.

    python benchmarks/input_pipeline.py [--images=2000] [--rounds=5] [--workdir=runs/pa100k]

Equal work: every picture of a set of 128×64 JPEGs is read in random order, decoded, resized to
384×128 by the bilinear filter, and put into a uint8 batch of 64. Ours reads ArrayRecord files that
`tfds_builders.prepare` wrote, the peer the JPEG files, with Pillow as torchvision does; IRRA's
loader would flip, crop, erase and normalise as well, which we do on the device. All contenders take
turns in each round; the median counts. The rate per core is that per second of CPU time, of all
threads and processes: it suffers less than the other where the machine has other work.

With --workdir, the share of time that a real run waited for data, from its metrics.jsonl.
"""

import argparse
import functools
import io
import json
import os
import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from aima_jax.data import Split, TrainBatches, categories, decode_all, open_dataset
from aima_jax.data.pictures import read_pixels, resize
from tfds_builders.pa100k import schema as pa100k
from tfds_builders.prepare import prepare

SOURCE_SIZE = (128, 64)
IMAGE_SIZE = (384, 128)
BATCH_SIZE = 64


def write_pictures(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """Write smooth, slightly noisy JPEGs in PA-100K's layout; return the training pictures."""
    height, width = SOURCE_SIZE
    rng = np.random.default_rng(0)
    pictures = folder / "release_data" / "release_data"
    pictures.mkdir(parents=True)
    paths = [pictures / f"{number:06d}.jpg" for number in range(1, count + 3)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)
    names = np.array([path.name for path in paths], object)[:, None]
    bits = np.zeros((count + 2, len(pa100k.FILE_NAMES)), np.uint8)
    bits[:, [2, 4, 14, 22]] = 1
    bits[:, 0] = np.arange(count + 2) % 2
    parts = {"train": slice(count), "val": slice(count, -1), "test": slice(-1, None)}
    content = {"attributes": np.array(pa100k.FILE_NAMES, object)[:, None]}
    for split, rows in parts.items():
        content |= {f"{split}_images_name": names[rows], f"{split}_label": bits[rows]}
    scipy.io.savemat(folder / "annotation.mat", content)
    return paths[:count]


def ours(split: Split, **options) -> Iterable[np.ndarray]:
    """One epoch of our batches."""
    _, category = categories(split.attributes)
    batches = TrainBatches(
        split,
        category,
        batch_size=BATCH_SIZE,
        image_size=IMAGE_SIZE,
        seed=0,
        epochs=1,
        prefetch=4,
        **options,
    )
    return (batch["image"] for batch in batches)


def torch_loader(paths: list[pathlib.Path], workers: int) -> Iterable[np.ndarray]:
    """One epoch of a PyTorch DataLoader over files, with what torchvision's Resize does."""
    import torch

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            height, width = IMAGE_SIZE
            picture = Image.open(paths[index]).convert("RGB")
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(picture))

    return torch.utils.data.DataLoader(
        Pictures(),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def rate(epoch: Callable[[], Iterable[np.ndarray]]) -> tuple[float, float]:
    """Pictures per second, and per second of CPU time, of one epoch."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    count = sum(len(batch) for batch in epoch())
    return count / (time.perf_counter() - clock), count / (cpu_seconds() - cpu)


def compare(contenders: dict[str, Callable[[], Iterable[np.ndarray]]], rounds: int) -> None:
    """Print the median rates of the contenders, and the ratio to the last of them."""
    rates = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, epoch in contenders.items():
            rates[name].append(rate(epoch))
    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in rates.items()
    }
    peer = list(medians.values())[-1]
    print(f"{'':<34}{'images/s':>10}{'ratio':>7}{'per core':>10}{'ratio':>7}")
    for name, values in medians.items():
        cells = "".join(f"{v:>10.0f}{v / p:>7.2f}" for v, p in zip(values, peer, strict=True))
        print(f"{name:<34}{cells}")


def show_costs(folder: pathlib.Path, split: Split, count: int = 300) -> None:
    """Print the CPU time that each part of making a picture ready takes."""
    indices = range(min(count, len(split)))
    stored = [split.bytes(index) for index in indices]

    def decode(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    pictures = [decode(data) for data in stored]
    skipped = {"image": tfds.decode.SkipDecoding()}
    builder: Any = tfds.builder_from_directory(folder)
    source = builder.as_data_source("train", decoders=skipped)
    for name, task, items in (
        ("TFDS reads and decodes its record", source.__getitem__, indices),
        ("we read its record", split.bytes, indices),
        ("Pillow decodes", decode, stored),
        ("Pillow resizes", lambda picture: resize(picture, IMAGE_SIZE), pictures),
        ("read_pixels, in all", lambda data: read_pixels(data, IMAGE_SIZE), stored),
    ):
        print(f"{name:<34}{1e6 * cost(task, items):>7.0f} µs of CPU a picture")


def cost(task: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Seconds of CPU that a task takes of this thread for an item, in the best of five rounds."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        for item in items:
            task(item)
        times.append((time.thread_time() - start) / len(items))
    return min(times)


def waiting_share(workdir: pathlib.Path) -> float:
    """Mean share of time that a run waited for data, over the steps it logged."""
    with (workdir / "metrics.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    name = "train/waiting_for_data"
    return statistics.mean(row[name] for row in rows if name in row)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="pictures of the set")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each contender")
    parser.add_argument("--workdir", type=pathlib.Path, help="also: how long this run waited")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as temporary:
        raw = pathlib.Path(temporary, "raw")
        paths = write_pictures(raw, args.images)
        folder = prepare("pa100k", manual_dir=raw, data_dir=pathlib.Path(temporary, "data"))
        split = open_dataset(folder).split("train")
        show_costs(folder, split)
        contenders: dict[str, Callable[[], Iterable[np.ndarray]]] = {
            f"ours, {n} threads": functools.partial(ours, split, threads=n)
            for n in sorted({1, 2, cores})
        }
        contenders["decode_all"] = lambda: [decode_all(split, IMAGE_SIZE)]
        try:
            import torch  # noqa: F401
        except ImportError:
            print("PyTorch is not installed: no peer")
        else:
            name = f"PyTorch DataLoader, {cores} workers"
            contenders[name] = functools.partial(torch_loader, paths, cores)
        compare(contenders, args.rounds)
    if args.workdir:
        print(f"{args.workdir} waited for data {waiting_share(args.workdir):.1%} of its time")


if __name__ == "__main__":
    main()
