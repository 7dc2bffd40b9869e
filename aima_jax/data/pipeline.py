"""Batches of decoded pictures, prefetched by threads.

The order is Grain's: a pseudo-random permutation for each epoch, computed index by index, so that
the batch of any step is known without computing earlier ones.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import grain
import numpy as np
from jaxtyping import Int, Int32, UInt8
from tqdm import tqdm

from aima_jax.data.dataset import Split
from aima_jax.data.pictures import in_threads

Batch = dict[str, np.ndarray]
# Writes the pictures of some indices into an array.
_Fill = Callable[[Int[np.ndarray, "batch"], UInt8[np.ndarray, "batch height width 3"]], object]

# Pictures per task of a thread: few, so that all threads share one batch.
_TASK = 8


class TrainBatches:
    """The training batches of this host, from `start_step` to the last step.

    An epoch is a permutation of the split without the remainder that does not fill a batch. The
    batch of step s depends on (seed, s) alone. Of its B rows, host p of P holds rows p·B/P to
    (p+1)·B/P.

    Iterating yields {"image": uint8[B/P, height, width, 3], "category": int32[B/P], "index":
    int32[B/P]}; the index is the picture's position in the split.

    Args:
        split: the pictures.
        category: of each picture.
        batch_size: pictures per step, over all hosts.
        image_size: height and width in pixels.
        seed: of the order.
        epochs: passes over the split.
        process_index: this host.
        process_count: number of hosts.
        threads: decoding threads; 0: one per core, at most 8.
        prefetch: number of prefetched batches.
        start_step: the first step to yield.
        cache: "host" decodes the split once and keeps it in memory; "none" decodes in each epoch.

    Attributes:
        waited: seconds spent waiting for a batch so far.

    Raises:
        ValueError: the split is smaller than a batch, or the batch is not a multiple of the hosts;
            while iterating, a picture cannot be decoded; the message names it.
    """

    def __init__(
        self,
        split: Split,
        category: Int[np.ndarray, "images"],
        *,
        batch_size: int,
        image_size: tuple[int, int],
        seed: int,
        epochs: int,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 0,
        prefetch: int = 4,
        start_step: int = 0,
        cache: str = "none",
    ):
        if not 0 < batch_size <= len(split):
            raise ValueError(
                f"batch_size is {batch_size}; expected 1 to {len(split)}, the number of pictures "
                f"of {split.dataset} {split.split}"
            )
        if cache not in ("none", "host"):
            raise ValueError(f'cache is {cache!r}; expected "none" or "host"')
        self.split = split
        self.category = np.asarray(category, np.int32)
        self.batch_size = batch_size
        height, width = image_size
        self.image_size = height, width
        self.steps_per_epoch = len(split) // batch_size
        self.epochs = epochs
        self.start_step = start_step
        self.waited = 0.0
        self._rows = _rows_of_host(batch_size, process_index, process_count)
        self._threads = threads
        self._prefetch = prefetch
        self._cache = cache
        # Grain adds the epoch to the seed: without this, adjacent seeds would share permutations.
        spread = np.random.SeedSequence(seed).generate_state(1)
        self._order = grain.MapDataset.range(len(split)).shuffle(seed=int(spread[0]))

    def __len__(self) -> int:
        """The number of steps of the whole run, including steps before `start_step`."""
        return self.steps_per_epoch * self.epochs

    def indices(self, step: int) -> Int32[np.ndarray, "batch"]:
        """The indices of a step's pictures, over all hosts."""
        return self._indices(step, range(self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        steps = range(self.start_step, len(self))
        made = _made_ahead(
            map(self._unfilled, steps),
            self._fill(),
            rows=len(self._rows),
            threads=self._threads,
            prefetch=self._prefetch,
        )
        with contextlib.closing(made):
            for _ in steps:
                asked = time.perf_counter()
                batch = next(made)
                self.waited += time.perf_counter() - asked
                yield batch

    def _unfilled(self, step: int) -> tuple[Batch, Int32[np.ndarray, "rows"]]:
        """A batch without its pictures, and their indices."""
        index = self._indices(step, self._rows)
        image = np.empty((len(index), *self.image_size, 3), np.uint8)
        return {"image": image, "category": self.category[index], "index": index}, index

    def _indices(self, step: int, rows: range) -> Int32[np.ndarray, "batch"]:
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        first = epoch * len(self.split) + step_in_epoch * self.batch_size
        return np.array([self._order[first + row] for row in rows], np.int32)

    def _fill(self) -> _Fill:
        if self._cache == "none":
            return _decode_from(self.split)
        pictures = decode_all(self.split, self.image_size, threads=self._threads)
        # Any mode but the default "raise" lets numpy write into `out` without a copy in between.
        return lambda indices, out: np.take(pictures, indices, axis=0, out=out, mode="clip")


def evaluation_batches(
    split: Split,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 0,
) -> Iterator[UInt8[np.ndarray, "rows height width 3"]]:
    """Yield this host's rows of batches that contain every picture of a split once, in order.

    The last batch is padded with black pictures, so that all have one shape and all hosts get the
    same number.

    Args:
        split: the pictures.
        batch_size: over all hosts.
        image_size: height and width in pixels.
        process_index: this host.
        process_count: number of hosts.
        threads: decoding threads; 0: one per core, at most 8.

    Raises:
        ValueError: the batch is not a multiple of the hosts, or a picture cannot be decoded.
    """
    rows = _rows_of_host(batch_size, process_index, process_count)

    def unfilled(first: int) -> tuple[Batch, Int32[np.ndarray, "rows"]]:
        index = first + np.arange(rows.start, rows.stop, dtype=np.int32)
        image = np.zeros((len(rows), *image_size, 3), np.uint8)
        return {"image": image}, index[index < len(split)]

    batches = map(unfilled, range(0, len(split), batch_size))
    decode = _decode_from(split)
    for batch in _made_ahead(batches, decode, rows=len(rows), threads=threads, prefetch=2):
        yield batch["image"]


def decode_all(
    split: Split,
    image_size: tuple[int, int],
    indices: Int[np.ndarray, "images"] | None = None,
    *,
    threads: int = 0,
) -> UInt8[np.ndarray, "images height width 3"]:
    """Decode a whole split, or the pictures of `indices`, into one array.

    Args:
        split: the pictures.
        image_size: height and width in pixels.
        indices: the pictures and their order; all by default.
        threads: decoding threads; 0: one per core, at most 8.

    Raises:
        ValueError: a picture cannot be decoded; the message names it.
    """
    if indices is None:
        indices = np.arange(len(split))
    image = np.empty((len(indices), *image_size, 3), np.uint8)
    fill = _decode_from(split)
    parts = (slice(first, first + _TASK) for first in range(0, len(indices), _TASK))
    done = in_threads(lambda rows: fill(indices[rows], image[rows]), parts, threads=threads)
    with tqdm(desc=f"decoding {split.split}", total=len(indices), disable=None) as bar:
        for _ in done:
            bar.update(min(_TASK, len(indices) - bar.n))
    return image


def _decode_from(split: Split) -> _Fill:
    return lambda indices, out: split.images(indices, out.shape[1:3], out)


def _made_ahead(
    unfilled: Iterable[tuple[Batch, Int32[np.ndarray, "rows"]]],
    fill: _Fill,
    *,
    rows: int,
    threads: int,
    prefetch: int,
) -> Generator[Batch]:
    """Yield batches in order, filled with their pictures, while filling the next ones.

    Args:
        unfilled: batches of `rows` rows, and the pictures for the first of these rows.
        fill: reads pictures into an array.
        rows: of a batch.
        threads: as in `in_threads`.
        prefetch: number of prefetched batches.
    """

    def parts() -> Iterator[tuple[Batch, Int32[np.ndarray, "rows"], slice, bool]]:
        for batch, index in unfilled:
            for first in range(0, rows, _TASK):
                yield batch, index, slice(first, first + _TASK), first + _TASK >= rows

    def read(part: tuple[Batch, Int32[np.ndarray, "rows"], slice, bool]) -> Batch | None:
        batch, index, part_rows, is_last = part
        fill(index[part_rows], batch["image"][: len(index)][part_rows])
        return batch if is_last else None

    ahead = prefetch * -(-rows // _TASK)
    for batch in in_threads(read, parts(), threads=threads, ahead=ahead):
        if batch is not None:
            yield batch


def _rows_of_host(batch_size: int, process_index: int, process_count: int) -> range:
    """The rows of a batch that a host holds."""
    local, remainder = divmod(batch_size, process_count)
    if remainder:
        raise ValueError(
            f"batch_size is {batch_size}; expected a multiple of the {process_count} hosts"
        )
    return range(process_index * local, (process_index + 1) * local)
