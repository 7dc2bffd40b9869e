"""The category, identity and camera of each picture: from a size and a seed to every record.

A picture's record depends on (seed, split, index) alone, so that any part of a set can be rendered
anywhere, in any order.

A large split is rendered by worker processes that write pictures into pipes: worker k of n renders
pictures k, k + n, … A full pipe blocks its worker, so that memory use does not grow with the size
of the split. (multiprocessing would import the caller's main module again, which breaks plain
scripts, and loky's manager prints a traceback when interrupted.)
"""

import dataclasses
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from tfds_builders.synthetic_pedestrians.rendering import render
from tfds_builders.synthetic_pedestrians.schema import SCHEMA, VIEWS, draw_description, seen_from

SPLITS = ("train", "val", "test")

_PICTURES_PER_CATEGORY = {"train": 10, "val": 4, "test": 12}
_MOST_CATEGORIES = {"train": 20_000, "val": 2_000, "test": 5_000}
_LOOKS = 3  # identities that share a description
_CAMERAS = 6

# Combined with the seed, so that no two purposes share random numbers.
_PEOPLE, _ASSIGNMENT, _PICTURE, _IDENTITY, _CAMERA = range(5)

# Its bits, and the number of its person.
_Category = tuple[UInt8[np.ndarray, "attributes"], int]

_NAME = re.compile(r"train(\d+)-val(\d+)-test(\d+)-seed(\d+)")


@dataclasses.dataclass(frozen=True)
class Size:
    """Number of pictures in each split, and the seed that determines everything."""

    train: int = 6000
    val: int = 400
    test: int = 1000
    seed: int = 0

    def __post_init__(self):
        if min(self.train, self.val, self.test) < 1:
            raise ValueError(f"{self}: expected at least one picture in each split")

    @property
    def name(self) -> str:
        """As "train6000-val400-test1000-seed0"."""
        return f"train{self.train}-val{self.val}-test{self.test}-seed{self.seed}"

    @classmethod
    def parse(cls, name: str) -> "Size":
        """The inverse of `name`.

        Raises:
            ValueError: it is not the name of a size.
        """
        match = _NAME.fullmatch(name)
        size = cls(*map(int, match.groups())) if match else None
        if size is None or size.name != name:
            raise ValueError(f"size {name!r} is unknown; expected one like {cls().name}")
        return size


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What one picture shows."""

    attributes: UInt8[np.ndarray, "attributes"]
    identity: int
    camera: int
    filename: str


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """All pictures of a split, by number, before any is rendered.

    `people` is the number of each category's person: a person seen from several sides has several
    categories.
    """

    name: str
    seed: int
    pictures: int
    categories: UInt8[np.ndarray, "category attributes"]
    people: tuple[int, ...]

    def assignment(self, index: int) -> Assignment:
        """The category, identity and camera of a picture.

        The first pictures cover every category twice; the rest favor categories with low numbers.
        """
        split = SPLITS.index(self.name)
        rng = np.random.default_rng((self.seed, _ASSIGNMENT, split, index))
        count = len(self.categories)
        popular = int(count * rng.random() ** 1.5)
        category = index % count if index < 2 * count else popular
        look, camera = rng.integers((_LOOKS, _CAMERAS)).tolist()
        # Nobody is in two splits.
        identity = (self.people[category] * _LOOKS + look) * len(SPLITS) + split
        filename = f"{self.name}/{index:07}_{identity:06}_c{camera}.jpg"
        return Assignment(self.categories[category], identity, camera, filename)

    def render(self, index: int) -> bytes:
        """Render a picture, a JPEG file."""
        shown = self.assignment(index)
        return render(
            SCHEMA.decode(shown.attributes),
            picture=(self.seed, _PICTURE, SPLITS.index(self.name), index),
            identity=(self.seed, _IDENTITY, shown.identity),
            camera=(self.seed, _CAMERA, shown.camera),
        )


def plan(size: Size) -> dict[str, SplitPlan]:
    """Plan the splits: a third or more of the categories of val and test never occur in train."""
    rng = np.random.default_rng((size.seed, _PEOPLE))
    strangers = _new_categories(rng)
    train: list[_Category] = []
    plans = {}
    for split in SPLITS:
        pictures = getattr(size, split)
        count = max(pictures // _PICTURES_PER_CATEGORY[split], 1)
        count = min(count, _MOST_CATEGORIES[split])
        seen = 0 if split == "train" else min(2 * count // 3, len(train))
        chosen = [train[i] for i in rng.permutation(len(train))[:seen]]
        chosen += itertools.islice(strangers, count - seen)
        if split == "train":
            train = chosen
        chosen = [chosen[i] for i in rng.permutation(count)]
        bits, people = zip(*chosen, strict=True)
        plans[split] = SplitPlan(split, size.seed, pictures, np.stack(bits), people)
    return plans


def _new_categories(rng: np.random.Generator) -> Iterator[_Category]:
    """Generate new categories without end: person after person, each seen from one or two sides."""
    known = set()
    for person in itertools.count():
        description = draw_description(rng)
        for view in rng.permutation(VIEWS)[: rng.integers(1, 3)].tolist():
            bits = SCHEMA.encode(seen_from(description, view))
            if bits.tobytes() not in known:
                known.add(bits.tobytes())
                yield bits, person


# Precedes a picture in the pipe: its number of bytes.
_LENGTH = struct.Struct("<I")

# For fewer pictures, starting workers takes longer than rendering.
_WORTH_WORKERS = 600


def render_split(size: Size, split: SplitPlan, workers: int | None = None) -> Iterator[bytes]:
    """Yield the pictures of a split of a set of a given size in order, as JPEG files.

    One worker per core by default, none (0) if the split is small.

    Raises:
        RuntimeError: a worker died; the reason is on stderr.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) if split.pictures >= _WORTH_WORKERS else 0
    if workers == 0:
        yield from map(split.render, range(split.pictures))
        return
    processes = []
    try:
        for number in range(workers):
            processes.append(_start(size.name, split.name, str(number), str(workers)))
        for index in range(split.pictures):
            yield _read(processes[index % workers], split.name, index)
    finally:
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()


def _start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        (sys.executable, "-m", "tfds_builders.synthetic_pedestrians.splits", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # only the parent handles Ctrl-C
    )


def _read(process: subprocess.Popen, split: str, index: int) -> bytes:
    output = process.stdout
    assert output is not None
    head = output.read(_LENGTH.size)
    data = output.read(*_LENGTH.unpack(head)) if len(head) == _LENGTH.size else b""
    if not data:
        raise RuntimeError(f"picture {index} of {split} was not rendered: its worker has died")
    return data


def _work(size: str, split: str, first: str, step: str) -> None:
    """Render every `step`-th picture of a split onto stdout, from the one numbered `first`."""
    # Exit quietly when the pipe is closed.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    pictures = plan(Size.parse(size))[split]
    for index in range(int(first), pictures.pictures, int(step)):
        data = pictures.render(index)
        sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _work(*sys.argv[1:])
