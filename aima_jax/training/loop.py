"""Training from the first step, or from the newest sound checkpoint, to the last."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from aima_jax.allocation import give_back_memory
from aima_jax.config import check
from aima_jax.sharding import batch_sharding, put_rows
from aima_jax.training import feed
from aima_jax.training.failure import raise_not_finite
from aima_jax.training.interruption import Interrupted, Interruption
from aima_jax.training.metrics import MetricsWriter
from aima_jax.training.profiling import Profile
from aima_jax.training.progress import Progress
from aima_jax.training.run import Run, open_run
from aima_jax.training.saving import Saver
from aima_jax.training.step import Metrics, Rows
from aima_jax.training.validation import Validation
from aima_jax.workdir import held, record

# What a host asks of all hosts; the largest counts.
_NOTHING, _SAVE, _STOP = 0, 1, 2
_NOT_LOGGED = ("failed", "skipped", "request")


def train(config: ConfigDict, workdir: str | pathlib.Path) -> None:
    """Trains as the config says; a workdir that holds a checkpoint is resumed.

    Raises:
        FileNotFoundError: dataset, weights or another run are not where the config says.
        ValueError: the config, the dataset or the workdir is not what it should be.
        FloatingPointError: a loss or gradient was not finite and `config.on_nonfinite` is "stop".
        OSError: a checkpoint could not be saved and `config.on_save_error` is "stop".
        Interrupted: the state was saved after a signal.
    """
    workdir = pathlib.Path(workdir).resolve()
    check(config)
    with held(workdir, config), Interruption() as interruption:
        run = open_run(config, workdir)
        if run.first_step == len(run.batches):
            told = f"{workdir} is trained: all {run.first_step} steps are done"
            print("\n".join([*run.notes, told]))
            return
        if jax.process_index() == 0:
            record(workdir, first_step=run.first_step, dataset=dict(run.description.dataset))
        _Loop(run, interruption).go()


class _Loop:
    """The steps of one start of a run. Metrics are read one step late, so that no step waits."""

    def __init__(self, run: Run, interruption: Interruption):
        config, first_host = run.config, jax.process_index() == 0
        self.run = run
        self.state = run.state
        self.total = len(run.batches)
        self.interruption = interruption
        self.saver = Saver(run.workdir, run.description)
        self.saved_at = time.monotonic()
        self.skipped = int(run.state.skipped)
        self.profile = Profile(config.profile, run.workdir)
        self.progress = Progress(
            self.total, first_step=run.first_step, batch_size=config.batch_size, shown=first_host
        )
        self.writer = MetricsWriter(run.workdir, first_step=run.first_step) if first_host else None
        self.validate = Validation(run) if run.problem.validation is not None else None

    def go(self) -> None:
        """Takes all steps that are left, with validations and saves between them."""
        run, config = self.run, self.run.config
        validate_every = max(1, round(config.eval_every_epochs * run.steps_per_epoch))
        for note in run.notes:
            self.progress.say(note)
        if run.first_step:
            self.progress.say(f"going on from step {run.first_step}")
        try:
            unread = take_step = None
            for step, batch in enumerate(self._batches(), start=run.first_step):
                take_step = take_step or self._compile(batch)
                with self.profile.around(step):
                    self.state, metrics = take_step(self.state, batch, run.table)
                request = self._read(*unread) if unread else _NOTHING
                unread = (step, metrics)
                done = step + 1
                due = done == self.total or (self.validate and done % validate_every == 0)
                every = config.checkpoint_every_steps
                if request or due or (every and done % every == 0):
                    request = max(request, self._read(*unread))
                    unread = None
                    self._pause(done, validate=bool(due and self.validate))
                    if request == _STOP and done < self.total:
                        self._stop(done)
            self.saver.wait()
        finally:
            self.progress.close()
            if self.writer:
                self.writer.close()
            self.saver.close()

    def _compile(self, batch: Rows) -> jax.stages.Compiled:
        """Compiles the step; drops what is done with, before the first step takes its memory.

        JAX forgets what has drawn or read the parameters as well. What this process has jitted
        elsewhere is compiled anew when it is next called.
        """
        compiled = self.run.step.lower(self.state, batch, self.run.table).compile()
        jax.clear_caches()
        give_back_memory()
        self.progress.pause(self.run.first_step, self.run.batches.waited)
        return compiled

    def _batches(self) -> Iterator[Rows]:
        """Batches with this host's request to all others, asked anew for each step."""
        run = self.run
        source = feed.resident if run.config.data.cache == "device" else feed.streamed
        sharding = batch_sharding(run.mesh)
        devices = run.mesh.size // jax.process_count()
        for batch in source(run.batches, run.mesh):
            request = np.full(devices, self._request(), np.int32)
            yield batch | put_rows({"request": request}, sharding)

    def _request(self) -> int:
        if self.interruption.name:
            return _STOP
        minutes = self.run.config.checkpoint_every_minutes
        return _SAVE if minutes and time.monotonic() - self.saved_at > 60 * minutes else _NOTHING

    def _read(self, step: int, metrics: Metrics) -> int:
        """Waits for a step, logs it if it is its turn, and returns what the hosts ask."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        done = step + 1
        self.profile.end(step)
        self.progress.advance(done)
        if values["failed"] >= 0:
            self.saver.save_failed(self.state)
            raise_not_finite(self.run, int(values["failed"]), values)
        if values["skipped"] > self.skipped:
            self.skipped = int(values["skipped"])
            self.progress.say(f"step {step} was not finite and is skipped, {self.skipped} so far")
        if done % self.run.config.log_every_steps == 0 or done == self.total:
            rates = self.progress.rates(done, self.run.batches.waited)
            logged = {n: v for n, v in values.items() if n not in _NOT_LOGGED} | rates
            self.progress.show(done, logged)
            self._write(done, {f"train/{name}": value for name, value in logged.items()})
        return int(values["request"])

    def _pause(self, done: int, *, validate: bool) -> None:
        """Validates if it is time, and saves."""
        metrics = None
        if validate:
            metrics = self.validate(self.state.params)
            scores = "  ".join(f"{name} {value:.1%}" for name, value in metrics.items())
            self.progress.say(f"validation after step {done}: {scores}")
            self._write(done, {f"val/{name}": value for name, value in metrics.items()})
        with self._going_on():
            self.saver.save(done, self.state, metrics=metrics)
        self.saved_at = time.monotonic()
        self.progress.pause(done, self.run.batches.waited)

    def _stop(self, done: int) -> None:
        self.saver.wait()
        raise Interrupted(
            f"{self.interruption.name or 'another host'}: saved step {done} of {self.total} in "
            f"{self.run.workdir}; the same command goes on from there"
        )

    def _write(self, done: int, values: dict[str, float]) -> None:
        if self.writer:
            epoch = done / self.run.steps_per_epoch
            with self._going_on():
                self.writer.write(done, {"epoch": epoch, **values})

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """A disk that is full stops the run, or is only told of, as the config says.

        Of many hosts one cannot go on alone.
        """
        try:
            yield
        except OSError as error:
            if self.run.config.on_save_error == "stop" or jax.process_count() > 1:
                raise
            self.progress.say(f"{error}; training goes on")
