"""Renders a split in several processes.

A worker is a process of its own that writes its pictures into a pipe, worker k of n those numbered
k, k + n, … A full pipe makes it wait, so that memory stays flat however large the split is, and
the order of the pictures does not depend on how many workers there are. (multiprocessing would
import the caller's main module again, which a plain script does not survive, and loky's manager
ends in a traceback when it is interrupted.)
"""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator

from tfds_builders.synthetic_pedestrians.splits import Size, SplitPlan, plan

# Before a picture in the pipe: how many bytes it has.
_LENGTH = struct.Struct("<I")

# Below that, starting workers takes longer than rendering.
_WORTH_WORKERS = 600


def render_split(size: Size, split: SplitPlan, workers: int | None = None) -> Iterator[bytes]:
    """Yield the pictures of a split of a set of that size in order, as JPEG files.

    One worker for each core by default, none (0) where the split is small.

    Raises:
        RuntimeError: a worker died; it said why on stderr.
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
        (sys.executable, "-m", "tfds_builders.synthetic_pedestrians.workers", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is for the parent to see
    )


def _read(process: subprocess.Popen, split: str, index: int) -> bytes:
    head = process.stdout.read(_LENGTH.size)
    data = process.stdout.read(*_LENGTH.unpack(head)) if len(head) == _LENGTH.size else b""
    if not data:
        raise RuntimeError(f"picture {index} of {split} was not rendered: its process has ended")
    return data


def _work(size: str, split: str, first: str, step: str) -> None:
    """Render every `step`-th picture of a split onto stdout, from the one numbered `first`."""
    # Ends quietly when nobody reads the pipe any more.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    pictures = plan(Size.parse(size))[split]
    for index in range(int(first), pictures.pictures, int(step)):
        data = pictures.render(index)
        sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _work(*sys.argv[1:])
