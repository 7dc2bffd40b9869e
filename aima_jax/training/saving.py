"""Writing checkpoints in the background, keeping the newest two and the best."""

import pathlib
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from aima_jax import checkpoint, manifest
from aima_jax.training.step import TrainState

_TRAIN_FIELDS = ("step", "opt_state", "failed", "skipped")


class Saver:
    """Saves training states without stalling the steps; one save runs at a time.

    The checkpoint that was best by validation Rank-1 stays, whatever comes after it, and so do the
    newest two: should the newest be damaged, the one before it serves.
    """

    def __init__(self, workdir: pathlib.Path, description: checkpoint.Description):
        from orbax.checkpoint import v1 as ocp

        policies = ocp.training.preservation_policies
        self._folder = workdir / checkpoint.FOLDER
        self._description = description
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(2),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["R1"],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )
        self._running: threading.Thread | None = None
        self._error: Exception | None = None
        self.last_step: int | None = None

    def save(
        self, step: int, state: TrainState, *, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts a save, after waiting for one that still runs.

        Raises:
            OSError: this save, or the one before it, failed; earlier checkpoints are as they were.
        """
        self.wait()
        metrics = dict(metrics) if metrics else None
        items = {
            "params": state.params,
            "train": {name: getattr(state, name) for name in _TRAIN_FIELDS},
        }
        try:
            response = self._checkpointer.save_checkpointables_async(
                step,
                items,
                force=True,
                overwrite=True,
                metrics=metrics,
                custom_metadata=asdict(self._description),
            )
        except Exception as error:
            self._error = error
            self.wait()
        self._running = threading.Thread(
            target=self._complete, args=(step, response, metrics), name=f"checkpoint-{step}"
        )
        self._running.start()
        self.last_step = step

    def save_failed(self, state: TrainState) -> None:
        """Saves the state before the step that was not finite, which is still to come then."""
        step = int(state.failed)
        before = replace(state, step=jnp.int32(step), failed=jnp.int32(-1))
        self.save(step, before)
        self.wait()

    def wait(self) -> None:
        """Waits until no save runs.

        Raises:
            OSError: it failed; earlier checkpoints are as they were.
        """
        if self._running is not None:
            self._running.join()
            self._running = None
        error, self._error = self._error, None
        if error is not None:
            self._clean()
            raise OSError(f"a checkpoint could not be saved in {self._folder}: {error}") from error

    def close(self) -> None:
        """Waits for a running save and ends Orbax's threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def _complete(self, step: int, response, metrics: dict[str, float] | None) -> None:
        try:
            response.result()
            if jax.process_index() == 0:
                path = self._folder / str(step)
                files = manifest.checksums(path, leave_out=checkpoint.MANIFEST)
                content = {"step": step, "metrics": metrics, "files": files}
                manifest.write_json(path / checkpoint.MANIFEST, content)
        except Exception as error:
            self._error = error

    def _clean(self) -> None:
        if jax.process_index() == 0:
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)


def restore(
    path: pathlib.Path, abstract: TrainState, *, mesh: Mesh, min_shard_elements: int
) -> TrainState:
    """Reads a whole training state, each array straight to its place on the mesh."""
    items = {
        "params": abstract.params,
        "train": {name: getattr(abstract, name) for name in _TRAIN_FIELDS},
    }
    loaded = checkpoint.load_items(path, items, mesh, min_shard_elements)
    return TrainState(params=loaded["params"], **loaded["train"])


def clear_damaged(workdir: pathlib.Path) -> list[str]:
    """Removes saves that were cut off, renames damaged ones to `<step>.damaged`; tells of each."""
    told = []
    for step in checkpoint.steps(workdir):
        path = workdir / checkpoint.FOLDER / str(step)
        if not (problems := checkpoint.damage(path)):
            continue
        told.append(f"passed over the checkpoint {path}: {'; '.join(problems[:3])}")
        if (path / checkpoint.MANIFEST).exists():
            aside = path.with_name(f"{step}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        else:
            shutil.rmtree(path)
    return told
