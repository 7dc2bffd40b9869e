"""metrics.jsonl and TensorBoard files, which are cut back when a run resumes."""

import json
import pathlib
from collections.abc import Mapping

from aima_jax.workdir import METRICS, read_metrics


class MetricsWriter:
    """Writes one line for each logged step or evaluation, and the same to TensorBoard.

    Args:
        workdir: holds `metrics.jsonl` and `tensorboard/`.
        first_step: the step at which the run starts or resumes; lines of later steps, which the run
            is about to take again, are removed.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int):
        from tensorboardX import SummaryWriter

        self._path = workdir / METRICS
        kept = [row for row in read_metrics(self._path) if row["step"] <= first_step]
        temporary = self._path.with_name(f".{METRICS}.tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(self._path)
        self._file = self._path.open("a")
        folder = workdir / "tensorboard"
        for old in folder.glob("events.*"):
            old.unlink()
        self._board = SummaryWriter(str(folder), write_to_disk=True)
        for row in kept:
            self._to_board(row)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step, with names such as "train/loss" or "val/R1"."""
        row = {"step": step, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._to_board(row)

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._board.close()

    def _to_board(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, row["step"])
