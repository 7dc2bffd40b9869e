"""Background writing of checkpoints, keeping the newest two and the best."""

import contextlib
import math
import pathlib
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aima_jax import checkpoint
from aima_jax.distributed import from_first_host
from aima_jax.files import free_name
from aima_jax.parameters import model_id
from aima_jax.sharding import to_first_host
from aima_jax.training.step import TrainState

_DISCARDED = ".discarded"
_TRAIN_FIELDS = ("step", "opt_state", "failed", "skipped")


class Saver:
    """Asynchronous saver of training states, one save at a time.

    The checkpoint with the best validation Rank-1 is kept, and the newest two: if the newest is
    damaged, the previous one is used.
    """

    def __init__(self, workdir: pathlib.Path, metadata: checkpoint.Metadata):
        self._folder = workdir / checkpoint.FOLDER
        self._metadata = metadata
        self._checkpointer = self._open()
        self._running: threading.Thread | None = None
        self._error: Exception | None = None

    def save(
        self, step: int, state: TrainState, *, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Start a save, after waiting for a running one.

        Raises:
            OSError: this save or the previous one failed; earlier checkpoints are unchanged. If the
                previous one failed, this save is still started.
        """
        try:
            self.wait()
        finally:
            self._start(step, state, dict(metrics) if metrics else None)

    def save_failed(self, state: TrainState) -> None:
        """Save the state before the step that was not finite, so that resuming repeats it."""
        step = int(state.failed)
        self.wait()
        if from_first_host(lambda: checkpoint.is_sealed(self._folder / str(step))):
            return
        before = replace(state, step=jnp.int32(step), failed=jnp.int32(-1))
        self.save(step, before)
        self.wait()

    def wait(self) -> None:
        """Wait until no save runs.

        Raises:
            OSError: a save failed; earlier checkpoints are unchanged.
        """
        if self._running is not None:
            self._running.join()
            self._running = None
        error, self._error = self._error, None
        if error is not None:
            raise self._failed(error) from error

    def close(self) -> None:
        """Wait for a running save and end Orbax's threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def _open(self):
        from orbax.checkpoint import v1 as ocp

        return ocp.training.Checkpointer(str(self._folder), cleanup_tmp_directories=True)

    def _start(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        # A copy, since the arrays are donated to the next step, and hashing them takes time.
        arrays: Any = state.params  # none is abstract
        params = to_first_host(arrays)
        items = {
            "params": state.params,
            "train": {name: getattr(state, name) for name in _TRAIN_FIELDS},
        }
        try:
            response = self._checkpointer.save_checkpointables_async(
                step, items, force=True, overwrite=True
            )
        except Exception as error:
            raise self._failed(error) from error
        self._running = threading.Thread(
            target=self._complete, args=(step, response, params, metrics), name=f"checkpoint-{step}"
        )
        self._running.start()

    def _complete(
        self,
        step: int,
        response: Any,
        params: dict[str, np.ndarray],
        metrics: dict[str, float] | None,
    ) -> None:
        try:
            response.result()
            if jax.process_index() == 0:
                vision = self._metadata.model["clip"]["vision"]
                identity = model_id(params, vision["pixel_mean"], vision["pixel_std"])
                checkpoint.seal(
                    self._folder / str(step),
                    replace(self._metadata, model_id=identity),
                    step=step,
                    metrics=metrics,
                )
                self._discard()
        except Exception as error:
            self._error = error

    def _discard(self) -> None:
        """Remove all but the newest two and the best; leftovers of a kill are not numbered."""
        steps = checkpoint.steps(self._folder.parent)
        scores = {step: checkpoint.score(self._folder / str(step)) for step in steps}
        scores = {step: score for step, score in scores.items() if score < math.inf}
        for step in scores.keys() - {*checkpoint.best_first(scores)[:1], *sorted(scores)[-2:]}:
            path = self._folder / str(step)
            path.rename(path.with_name(f".{step}{_DISCARDED}"))
        self._clean()

    def _failed(self, error: Exception) -> OSError:
        """Restart Orbax after a failed save, and return the error to raise.

        Orbax would raise the error again at the next save. With several hosts there is no next
        save: they cannot agree on it once one of them has failed.
        """
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):
                self._checkpointer.close()
            self._clean()
            self._checkpointer = self._open()
        return OSError(f"a checkpoint could not be saved in {self._folder}: {error}")

    def _clean(self) -> None:
        """Remove leftovers of failed saves and removed checkpoints."""
        steps = {str(step) for step in checkpoint.steps(self._folder.parent)}
        for path in self._folder.iterdir():
            unsealed = path.name in steps and not checkpoint.is_sealed(path)
            if unsealed or ".orbax-checkpoint-tmp" in path.name or path.suffix == _DISCARDED:
                shutil.rmtree(path, ignore_errors=True)


def restore_state(
    path: pathlib.Path, abstract: TrainState, *, mesh: Mesh, min_shard_elements: int
) -> TrainState:
    """Read a complete training state, each array directly to its place on the mesh."""
    items = {
        "params": abstract.params,
        "train": {name: getattr(abstract, name) for name in _TRAIN_FIELDS},
    }
    try:
        loaded = checkpoint.load_items(path, items, mesh, min_shard_elements)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path} has the state of another optimizer, or another version of it; start a new run "
            f"from its model: --config.init_from={path}"
        ) from error
    return TrainState(params=loaded["params"], **loaded["train"])


def clear_damaged(workdir: pathlib.Path) -> list[str]:
    """Rename damaged checkpoints to `<step>.damaged`, remove an incomplete save; a line for each.

    Saves run one after the other: only the newest can be incomplete.
    """
    notes, steps = [], checkpoint.steps(workdir)
    for step in steps:
        path = workdir / checkpoint.FOLDER / str(step)
        if not (problems := checkpoint.damage(path)):
            continue
        notes.append(f"passed over the checkpoint {path}: {'; '.join(problems[:3])}")
        if step == steps[-1] and not checkpoint.is_sealed(path):
            shutil.rmtree(path)
        else:
            path.rename(free_name(path.with_name(f"{step}.damaged")))
    return notes
