"""Metrics of a ranking beside a full sort in PyTorch, and exact search beside faiss's flat index.

    python benchmarks/retrieval.py [--parts metrics search] [--threads=2] [--rounds=5]
    python benchmarks/retrieval.py --parts growth            # 2,000 queries, up to 1,000,000 images
    python benchmarks/retrieval.py --parts upar              # 3,462 queries × 33,407 images
    python benchmarks/retrieval.py --parts posterior --workdir=RUN --pictures=GALLERY

metrics: 484 queries × 16,483 images × 512, as Market-1501 Attribute has. Equal work: from the
    features in memory to R1, R5, R10, mAP and mINP by all three protocols. The peer does it IRRA's
    way, the whole matrix and its argsort, which it uses for all three protocols.
search: the ten nearest of 1,000,000 × 512 for batches of 1 to 256 queries, by a gallery in a folder
    as `aima search` opens it. Equal work: exact float32 inner products with a gallery that each
    side holds in memory. Once more with a filter that keeps 1 %.
growth: time and memory of all three protocols against the size of the gallery.
upar: time and memory of protocol `upar`, mADM with it, at the size of the challenge's validation.
posterior: partial descriptions asked in two steps, beside their exact order: how many of the first
    ten and hundred are found by the number of candidates, and the time from query to answer. The
    gallery's pictures are repeated with noise until there are as many as asked.

Contenders take turns in each round, on equally many threads, and the median counts. CPU seconds,
summed over threads, say what a machine that is busy otherwise would do. "first" is the first call,
which compiles. Memory is the highest resident set of the host during the calls above that before
them, read as Linux gives it.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax
import numpy as np
import psutil

from aima_jax.evaluation.metrics import METRICS
from aima_jax.evaluation.protocols import (
    AVERAGE_PRECISION,
    GalleryLabels,
    evaluate_rankings,
    removed_images,
)
from aima_jax.search import Gallery, PersonSearch, find_pictures, parse_request
from aima_jax.search.facts import Fact
from aima_jax.search.gallery import GalleryRows, Stamp

DIM = 512
PROTOCOLS = ("standard", "sal", "asmr")
TRAITS = {"cameras": False, "query_folder": None}


class PeakMemory:
    """The highest resident set inside a `with`, above that at its start; Linux keeps the count."""

    def __enter__(self):
        self._before = psutil.Process().memory_info().rss
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # starts the high-water mark anew
        return self

    def __exit__(self, *_):
        with open("/proc/self/status") as file:
            marks = dict(line.split(":", 1) for line in file)
        self.bytes = int(marks["VmHWM"].split()[0]) * 1024 - self._before


def compare(contenders: Mapping[str, Callable[[], object]], rounds: int) -> None:
    """Print time, CPU time and memory of each contender, and how often the first beats it."""
    first, clock, cpu, memory = {}, {}, {}, {}
    for turn in range(rounds + 1):
        for name, task in contenders.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            with PeakMemory() as peak:
                task()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
            memory[name] = max(memory.get(name, 0), peak.bytes)
            if turn == 0:
                first[name] = seconds
            else:
                clock.setdefault(name, []).append(seconds)
                cpu.setdefault(name, []).append(cpu_seconds)
    ours = next(iter(contenders))
    print(f"{'':<26}{'first s':>9}{'s':>9}{'ratio':>7}{'CPU s':>9}{'ratio':>7}{'MB':>8}")
    for name in contenders:
        cells = ""
        for times in (clock, cpu):
            median = statistics.median(times[name])
            cells += f"{median:>9.3f}{median / statistics.median(times[ours]):>7.2f}"
        print(f"{name:<26}{first[name]:>9.2f}{cells}{memory[name] / 1e6:>8.0f}", flush=True)


def normalised(rows: int, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def labels_of(gallery: int, queries: int) -> GalleryLabels:
    """Every query has images, a few queries many of them."""
    skewed = (np.random.default_rng(0).beta(1, 3, gallery - 2 * queries) * queries).astype(int)
    category = np.concatenate([np.arange(queries).repeat(2), skewed])
    unknown = np.full(gallery, -1)
    return GalleryLabels(
        category, unknown, unknown, np.char.zfill(np.arange(gallery).astype(str), 7)
    )


def sorted_metrics(queries, gallery, category, removed: Mapping[str, Any]):
    """R1, R5, R10, mAP and mINP by each protocol from one full sort, in PyTorch."""
    import torch

    similarity = queries @ gallery.T
    order = torch.argsort(similarity, dim=1, descending=True)
    hit = category[order] == torch.arange(len(queries), device=order.device)[:, None]
    results = {}
    for protocol, out in removed.items():
        kept = ~(hit & out[order])
        hits = hit & kept
        rank = kept.cumsum(1)
        found = hits.cumsum(1)
        relevant = found[:, -1]
        precision = found / rank
        if AVERAGE_PRECISION[protocol] == "trapezoidal":
            before = torch.where(rank > 1, (found - 1) / (rank - 1).clamp(min=1), 1.0)
            precision = (precision + before) / 2
        last = torch.where(hits, rank, 0).amax(1)
        values = {f"R{k}": (hits & (rank <= k)).any(1).float() for k in (1, 5, 10)}
        values["mAP"] = (precision * hits).sum(1) / relevant
        values["mINP"] = relevant / last
        scored = relevant > 0
        results[protocol] = {name: value[scored].mean().item() for name, value in values.items()}
    return results


def benchmark_metrics(rounds: int) -> None:
    import torch

    images = 16_483
    queries, gallery = normalised(484, 1), normalised(images, 2)
    labels = labels_of(images, len(queries))
    removed = {name: removed_images(name, labels, TRAITS) for name in PROTOCOLS}
    # Images of a category resemble its query, some more than others, so that the numbers mean much.
    gallery += 0.2 * np.random.default_rng(3).random((images, 1)) * queries[labels.category]
    results = {}

    def ours():
        category = np.arange(len(queries))
        results["ours"] = evaluate_rankings(
            queries, gallery, category, labels, PROTOCOLS, traits=TRAITS
        )

    def full_sort():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        arrays = (torch.from_numpy(x).to(device) for x in (queries, gallery, labels.category))
        out = {name: torch.from_numpy(mask).to(device) for name, mask in removed.items()}
        results["peer"] = sorted_metrics(*arrays, removed=out)

    print(f"\nmetrics: {len(queries)} × {images} × {DIM}, protocols {', '.join(removed)}")
    compare({"ours": ours, "full sort, PyTorch": full_sort}, rounds)
    differences = [
        abs(results["ours"][protocol][name] - results["peer"][protocol][name])
        for protocol in removed
        for name in METRICS
    ]
    scores = results["ours"]["standard"]
    print(f"mAP {scores['mAP']:.4f}; largest difference of any metric {max(differences):.1e}")


def filled(place: str, features: np.ndarray, model_id: str = "none") -> Gallery:
    """A gallery in a folder, with a hundred cameras."""
    gallery = Gallery.create(
        place, model_id=model_id, dim=features.shape[1], folder="/nowhere", dtype="float32"
    )
    for start in range(0, len(features), 8192):
        part = features[start : start + 8192]
        numbers = range(start, start + len(part))
        facts: list[dict[str, Fact]] = [{"camera": number % 100} for number in numbers]
        names, stamps = [f"{number:09}.jpg" for number in numbers], [Stamp(0, 0)] * len(part)
        gallery.write(GalleryRows(names, part, facts, stamps))
    return gallery


def benchmark_search(rounds: int, images: int, threads: int) -> None:
    import faiss  # pyright: ignore[reportMissingImports]  (of this comparison alone)

    faiss.omp_set_num_threads(threads)
    features = normalised(images, 4)
    index = faiss.IndexFlatIP(DIM)
    index.add(features)
    with tempfile.TemporaryDirectory() as place:
        gallery = filled(place, features)
        del features
        gallery.nearest(normalised(1, 5), 10)
    print(f"\nsearch: ten of {images} × {DIM}, faiss {faiss.__version__}")
    for batch in (1, 16, 64, 256):
        queries = normalised(batch, 5)
        results = {}

        def ours(queries=queries, results=results):
            results["ours"] = gallery.nearest(queries, 10)

        def filtered(queries=queries):
            gallery.nearest(queries, 10, "camera == 7")

        def flat(queries=queries, results=results):
            results["peer"] = index.search(queries, 10)

        print(f"batch of {batch}")
        contenders = {"ours": ours, "ours, 1 % kept": filtered, "faiss IndexFlatIP": flat}
        compare(contenders, rounds)
        same = np.mean(results["ours"][1] == results["peer"][1])
        apart = np.abs(results["ours"][0] - results["peer"][0]).max()
        print(f"same images at the same place: {same:.2%}; scores differ by at most {apart:.1e}")


def benchmark_growth(images: int, path: pathlib.Path | None) -> None:
    queries = normalised(2000, 6)
    print(f"\ngrowth: {len(queries)} queries, dim {DIM}, all protocols, compiling included")
    print(f"{'images':>9}{'s':>8}{'CPU s':>8}{'MB':>7}")
    found = {}
    for count in (images // 16, images // 4, images):
        gallery = normalised(count, 7)
        labels = labels_of(count, len(queries))
        start, start_cpu = time.perf_counter(), time.process_time()
        with PeakMemory() as peak:
            evaluate_rankings(
                queries,
                gallery,
                np.arange(len(queries)),
                labels,
                PROTOCOLS,
                traits=TRAITS,
            )
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        print(f"{count:>9}{seconds:>8.1f}{cpu_seconds:>8.1f}{peak.bytes / 1e6:>7.0f}", flush=True)
        found[count] = {"seconds": seconds, "GB": peak.bytes / 1e9}
    if path:
        path.write_text(json.dumps(found, indent=1))


def benchmark_upar() -> None:
    bits = np.random.default_rng(8).random((6000, 40)) < 0.25
    bits = np.unique(bits.astype(np.uint8), axis=0)[:3_462]
    labels = labels_of(33_407, len(bits))
    queries, gallery = normalised(len(bits), 9), normalised(len(labels), 10)
    gallery += 0.1 * queries[labels.category]
    print(f"\nupar: {len(queries)} × {len(gallery)} × {DIM}, compiling included")
    start, start_cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as peak:
        found = evaluate_rankings(
            queries,
            gallery,
            np.arange(len(queries)),
            labels,
            ("upar",),
            traits=TRAITS,
            attributes=(bits, bits[labels.category]),
        )["upar"]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"{seconds:.1f} s, {cpu_seconds:.1f} CPU s, {peak.bytes / 1e6:.0f} MB")
    print(f"mAP {found['mAP']:.4f}, mADM {found['mADM']:.4f}")


def benchmark_posterior(workdir: str, pictures: str, images: int, queries: int = 10) -> None:
    search, real = PersonSearch.load(workdir), Gallery(pictures)
    real.require_model(search.model_id)
    rng = np.random.default_rng(11)
    keys = [known.key for known in real.known().values() if not known.unreadable]
    own = real.rows(keys).features
    features = own[np.arange(images) % len(own)]
    noise = rng.standard_normal((images - len(own), search.dim), dtype=np.float32)
    features[len(own) :] += 0.3 / np.sqrt(search.dim) * noise
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as place:
        gallery = filled(place, features, search.model_id)
        gallery.nearest(features[:1], 10)
    start = time.perf_counter()
    some = dict(list(search.schema.decode(search.bank.attributes[0]).items())[:1])
    find_pictures(search, gallery, parse_request(search, [some]))
    print(f"first query {time.perf_counter() - start:.1f} s")
    print(f"\nposterior: {images} images, {len(search.bank.features)} categories")
    print(f"{'groups':<10}{'depth':>7}{'of 10':>8}{'of 100':>8}{'ms':>8}")
    for groups, without in ((1, False), (2, False), (3, False), (1, True)):
        requests = []
        for bits in search.bank.attributes[rng.integers(len(search.bank.attributes), size=queries)]:
            said = list(search.schema.decode(bits).items())
            some = dict(said[place] for place in rng.choice(len(said), groups, replace=False))
            asked = ([], [some]) if without else ([some], [])
            requests.append(parse_request(search, asked[0], without=asked[1]))
        start = time.perf_counter()
        exact = [find_pictures(search, gallery, request, 100) for request in requests]
        seconds = (time.perf_counter() - start) / queries
        name = f"{'not ' if without else ''}{groups}"
        print(f"{name:<10}{'exact':>7}{'':>16}{1e3 * seconds:>8.0f}", flush=True)
        for depth in (200, 1000, 5000):
            recalls, times = [], []
            for request, best in zip(requests, exact, strict=True):
                start = time.perf_counter()
                with mock.patch.object(gallery, "every", return_value=None):
                    near = find_pictures(search, gallery, request, 100, depth=depth)
                times.append(time.perf_counter() - start)
                found = {each.name for each in near}
                # Of pictures that tie with the last one, any will do.
                hits = [each.name in found or each.score == best[-1].score for each in best]
                recalls.append((np.mean(hits[:10]), np.mean(hits)))
            ten, hundred = np.mean(recalls, axis=0)
            milliseconds = 1e3 * statistics.median(times)
            print(f"{name:<10}{depth:>7}{ten:>8.1%}{hundred:>8.1%}{milliseconds:>8.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("metrics", "search", "growth", "upar", "posterior")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts[:2])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1_000_000, help="of all but metrics, upar")
    parser.add_argument("--workdir", help="of posterior: a run")
    parser.add_argument("--pictures", help="of posterior: a gallery that the run made")
    parser.add_argument("--json", type=pathlib.Path, help="file for the numbers of growth")
    arguments = parser.parse_args()

    # XLA takes as many threads as it may run on: before JAX starts, this holds for every contender.
    cores = sorted(os.sched_getaffinity(0))[: arguments.threads]
    os.sched_setaffinity(0, cores)
    print(f"{len(cores)} cores, JAX {jax.__version__} on {jax.devices()[0].device_kind}")
    if "metrics" in arguments.parts:
        benchmark_metrics(arguments.rounds)
    if "search" in arguments.parts:
        benchmark_search(arguments.rounds, arguments.images, len(cores))
    if "growth" in arguments.parts:
        benchmark_growth(arguments.images, arguments.json)
    if "upar" in arguments.parts:
        benchmark_upar()
    if "posterior" in arguments.parts:
        benchmark_posterior(arguments.workdir, arguments.pictures, arguments.images)


if __name__ == "__main__":
    main()
