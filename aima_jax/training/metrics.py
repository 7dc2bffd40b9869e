"""metrics.jsonl and a TensorBoard file, which are cut back when a run resumes."""

import errno
import json
import os
import pathlib
import struct
import time
from collections.abc import Mapping

from aima_jax.files import atomic_write
from aima_jax.workdir import METRICS, read_metrics


class MetricsWriter:
    """Writes one line for each logged step or evaluation, and the same to TensorBoard.

    What is written is in the files at once: a checkpoint never lies ahead of its metrics. Of
    tensorboardX only the format is used: its writer ends in a thread that a full disk ends, and
    then whoever writes waits for it for ever.

    Args:
        workdir: holds `metrics.jsonl` and `tensorboard/`.
        first_step: the step at which the run starts or resumes; lines of later steps, which the run
            is about to take again, are removed.

    Raises:
        OSError: the disk is full; the files are as they were.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int):
        path, folder = workdir / METRICS, workdir / "tensorboard"
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
        """Writes the values of a step, with names such as "train/loss" or "val/R1".

        Raises:
            OSError: the disk is full; these values are written together with the next ones.
        """
        row = {"step": step, **values}
        try:
            self._lines.append(_line(row))
        finally:
            self._board.append(_scalars(row))

    def close(self) -> None:
        """Closes both files."""
        self._lines.close()
        self._board.close()


class _Appended:
    """A file to which records are appended whole; those that do not fit wait for the next one."""

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


def _line(row: Mapping[str, float]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _scalars(row: Mapping[str, float]) -> bytes:
    """A row as TensorBoard's event."""
    from tensorboardX.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"
    ]
    return _event(step=row["step"], summary=Summary(value=values))


def _event(**fields) -> bytes:
    """An event in TFRecord's frame: length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    def checked(content: bytes) -> bytes:
        return content + struct.pack("<I", masked_crc32c(content))

    content = Event(wall_time=time.time(), **fields).SerializeToString()
    return checked(struct.pack("<Q", len(content))) + checked(content)
