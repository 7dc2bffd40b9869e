"""The log of a run: on the screen and in files.

A terminal shows a progress bar, piped output has lines. The files are metrics.jsonl and
TensorBoard's, which are truncated when a run resumes.
"""

import errno
import json
import math
import os
import pathlib
import struct
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from aima_jax.files import atomic_write
from aima_jax.losses import LOSSES
from aima_jax.workdir import METRICS_FILE, read_metrics


class Progress:
    """A display of losses, images/s, the share of time spent waiting for data, and the time left.

    Args:
        total: steps of the whole run.
        first_step: the step at which the run starts or resumes.
        batch_size: images per step.
        shown: False on all hosts but the first.
    """

    def __init__(self, total: int, *, first_step: int, batch_size: int, shown: bool):
        self._bar = tqdm(
            total=total,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not (shown and sys.stderr.isatty()),
        )
        self._lines = shown and not sys.stderr.isatty()
        self._total = total
        self._batch_size = batch_size
        self._since = (first_step, time.perf_counter(), 0.0)

    def rates(self, step: int, waited: float) -> dict[str, float]:
        """Images/s and the share of time spent waiting, since the last call.

        Args:
            step: steps done.
            waited: seconds waited for data since the run started.
        """
        last_step, last_time, last_waited = self._since
        now = time.perf_counter()
        self._since = (step, now, waited)
        seconds = max(now - last_time, 1e-9)
        return {
            "images_per_second": (step - last_step) * self._batch_size / seconds,
            "waiting_for_data": (waited - last_waited) / seconds,
        }

    def restart_rates(self, step: int, waited: float) -> None:
        """Restart the rates after an interruption of the steps; arguments as in `rates`."""
        self._since = (step, time.perf_counter(), waited)

    def advance(self, step: int) -> None:
        """Move the bar to the number of steps done."""
        self._bar.update(step - self._bar.n)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the losses and rates of a logged step."""
        rate = values["images_per_second"]
        shown = {n: f"{values[n]:.3g}" for n in ("loss", *LOSSES) if n in values}
        shown["images/s"] = f"{rate:.1f}"
        shown["waiting"] = f"{values['waiting_for_data']:.0%}"
        self._bar.set_postfix(shown)
        if self._lines:
            left = tqdm.format_interval((self._total - step) * self._batch_size / max(rate, 1e-9))
            facts = "  ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._total}  {facts}  left {left}", flush=True)

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._lines:
            print(text, flush=True)
        elif not self._bar.disable:
            self._bar.write(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class MetricsWriter:
    """Writer of one line per logged step or validation, also for TensorBoard.

    Writes are unbuffered, so that a checkpoint is never ahead of its metrics. Only the format of
    tensorboardX is used: its writer has a thread that dies on a full disk, and the next write would
    then block forever.

    Args:
        workdir: contains `metrics.jsonl` and `tensorboard/`.
        first_step: the step at which the run starts or resumes; lines of later steps, which will be
            repeated, are removed.

    Raises:
        OSError: the disk is full; the files are as they were.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int):
        path, folder = workdir / METRICS_FILE, workdir / "tensorboard"
        kept = [row for row in read_metrics(path) if row["step"] <= first_step]
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"".join(map(_line, kept)))
        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.*"):
            old.unlink()
        self._lines = _Appended(path)
        self._board = _Appended(folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}")
        self._board.append(b"".join([_event(file_version="brain.Event:2"), *map(_scalars, kept)]))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step, with names such as "train/loss" or "val/R1".

        Raises:
            OSError: the disk is full; these values will be written with the next ones.
        """
        row = {"step": step, **values}
        try:
            self._lines.append(_line(row))
        finally:
            self._board.append(_scalars(row))

    def close(self) -> None:
        """Close both files."""
        self._lines.close()
        self._board.close()


class _Appended:
    """A file to which whole records are appended; records that do not fit wait for the next."""

    def __init__(self, path: pathlib.Path):
        self._file = path.open("ab", buffering=0)
        self._waiting = b""
        self.close = self._file.close

    def append(self, record: bytes) -> None:
        self._waiting += record
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(self._waiting) < len(self._waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        except OSError:
            self._file.truncate(end)
            raise
        self._waiting = b""


def _line(row: Mapping[str, int | float]) -> bytes:
    """A row as JSON, which has no NaN: null stands for a non-finite number."""
    values = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def _scalars(row: Mapping[str, int | float]) -> bytes:
    """A row as a TensorBoard event."""
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    values = [
        Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"
    ]
    return _event(step=row["step"], summary=Summary(value=values))


def _event(**fields) -> bytes:
    """An event in TFRecord framing: length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.record_writer import masked_crc32c

    def checked(content: bytes) -> bytes:
        return content + struct.pack("<I", masked_crc32c(content))

    content = Event(wall_time=time.time(), **fields).SerializeToString()
    return checked(struct.pack("<Q", len(content))) + checked(content)
