"""Training from the first step, or from the newest sound checkpoint, to the last."""

import contextlib
import itertools
import math
import os
import pathlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from aima_jax.data import TrainBatches, categories, decode_all
from aima_jax.evaluation.encoder import Encoder
from aima_jax.evaluation.metrics import METRICS
from aima_jax.evaluation.protocols import GalleryLabels, evaluate_rankings
from aima_jax.fields import check_config, profiled_steps
from aima_jax.files import user_path
from aima_jax.losses import LOSSES
from aima_jax.parameters import Parameters
from aima_jax.sharding import batch_sharding, one_ahead, put_rows
from aima_jax.text import build_text_table
from aima_jax.training.logs import MetricsWriter, Progress
from aima_jax.training.saving import Saver
from aima_jax.training.setup import Run, open_run
from aima_jax.training.step import Metrics, Rows
from aima_jax.workdir import locked_workdir, record_start

# A host's request to all hosts; the largest is followed.
_NOTHING, _SAVE, _STOP = 0, 1, 2
_NOT_LOGGED = ("failed", "skipped", "request")


class Interrupted(Exception):
    """The run saved its state and stopped after a signal; the same command resumes it."""

    exit_code = 75  # EX_TEMPFAIL


def train(config: ConfigDict, workdir: str | pathlib.Path) -> None:
    """Train as configured; if the workdir has a checkpoint, resume from it.

    Signals are handled only if called from the main thread.

    Raises:
        FileNotFoundError: dataset, weights or another run are not where the config says.
        ValueError: the config, the dataset or the workdir is invalid.
        FloatingPointError: a loss or gradient was not finite and `config.on_nonfinite` is "stop".
        OSError: a checkpoint could not be saved and `config.on_save_error` is "stop".
        Interrupted: the state was saved after a signal.
    """
    workdir = user_path(workdir).resolve()
    check_config(config)
    with locked_workdir(workdir, config) as check_lock:
        run = open_run(config, workdir)
        if run.first_step == len(run.batches):
            note = f"{workdir} is fully trained: all {run.first_step} steps are done"
            print("\n".join([*run.notes, note]))
            return
        if jax.process_index() == 0:
            record_start(workdir, first_step=run.first_step, dataset=dict(run.metadata.dataset))
        _take_steps(run, check_lock)


def _take_steps(run: Run, check_lock: Callable[[], None]) -> None:
    """Take all remaining steps, with validations and saves between them."""
    config, total, first_host = run.config, len(run.batches), jax.process_index() == 0
    validate = Validation(run) if run.problem.validation is not None else None
    validate_every = max(1, round(config.eval_every_epochs * run.steps_per_epoch))
    state, skipped = run.state, int(run.state.skipped)

    with contextlib.ExitStack() as stack:
        progress = Progress(
            total, first_step=run.first_step, batch_size=config.batch_size, shown=first_host
        )
        stack.enter_context(contextlib.closing(progress))
        for note in run.notes:
            progress.say(note)
        if run.first_step:
            progress.say(f"resuming from step {run.first_step}")
        batches = batches_of(run)
        first = next(batches)
        lowered = run.step.lower(state, first | ask_all_hosts(run.mesh, _NOTHING), run.table)
        take_step = _compile(lowered)
        progress.restart_rates(run.first_step, run.batches.waited)
        batches = itertools.chain(iter([first]), batches)
        del first, lowered

        interruption = stack.enter_context(Interruption())
        saver = stack.enter_context(contextlib.closing(Saver(run.workdir, run.metadata)))
        trace = stack.enter_context(contextlib.closing(Trace(config.profile, run.workdir)))
        if config.profile and not run.first_step <= profiled_steps(config.profile)[0] < total:
            progress.say(
                f"config.profile={config.profile!r} traces nothing: this run takes only steps "
                f"{run.first_step} to {total - 1}"
            )
        writer = None
        if first_host:
            writer = MetricsWriter(run.workdir, first_step=run.first_step)
            stack.enter_context(contextlib.closing(writer))

        def write(done: int, values: Mapping[str, float]) -> None:
            if writer:
                with _full_disk_handled(config, progress):
                    writer.write(done, {"epoch": done / run.steps_per_epoch, **values})

        def read(step: int, metrics: Metrics) -> int:
            """Wait for a step, log it if due, and return the hosts' request."""
            nonlocal skipped
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            done = step + 1
            trace.end(step)
            progress.advance(done)
            if values["failed"] >= 0:
                saver.save_failed(state)
                _raise_not_finite(run, int(values["failed"]), values)
            if values["skipped"] > skipped:
                skipped = int(values["skipped"])
                progress.say(f"step {step} was not finite and was skipped, {skipped} so far")
            if done % config.log_every_steps == 0 or done == total:
                rates = progress.rates(done, run.batches.waited)
                logged = {n: v for n, v in values.items() if n not in _NOT_LOGGED} | rates
                progress.show(done, logged)
                write(done, {f"train/{name}": value for name, value in logged.items()})
            return int(values["request"])

        saved_at = time.monotonic()
        unread = None
        for step, batch in enumerate(batches, start=run.first_step):
            check_lock()
            request = _NOTHING
            if interruption.name:
                request = _STOP
            elif 0 < 60 * config.checkpoint_every_minutes < time.monotonic() - saved_at:
                request = _SAVE
            with trace.around(step):
                batch |= ask_all_hosts(run.mesh, request)
                state, metrics = take_step(state, batch, run.table)

            # Metrics are read one step late, so that no step waits for the host.
            asked = read(*unread) if unread else _NOTHING
            unread = (step, metrics)

            done = step + 1
            due = validate if done == total or done % validate_every == 0 else None
            every = config.checkpoint_every_steps
            if not (asked or due or done == total or (every and done % every == 0)):
                continue
            asked, unread = max(asked, read(*unread)), None
            scores = None
            if due:
                scores = due(state.params)
                shown = "  ".join(f"{name} {value:.1%}" for name, value in scores.items())
                progress.say(f"validation after step {done}: {shown}")
                write(done, {f"val/{name}": value for name, value in scores.items()})
            with _full_disk_handled(config, progress):
                saver.save(done, state, metrics=scores)
            saved_at = time.monotonic()
            progress.restart_rates(done, run.batches.waited)
            if asked == _STOP and done < total:
                saver.wait()
                raise Interrupted(
                    f"{interruption.name or 'another host'}: saved step {done} of {total} in "
                    f"{run.workdir}; the same command resumes from there"
                )
        saver.wait()


def replay(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
    """Repeat the step after the newest checkpoint, without saving anything.

    Returns:
        Its losses and other metrics, which are also printed.
    """
    workdir = user_path(workdir).resolve()
    check_config(config)
    with locked_workdir(workdir, config):
        run = open_run(config, workdir)
        batch = next(batches_of(run)) | ask_all_hosts(run.mesh, _NOTHING)
        _, metrics = run.step(run.state, batch, run.table)
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        print(f"step {run.first_step}  {name:<18} {value!r}")
    return values


def batches_of(run: Run) -> Iterator[Rows]:
    """The remaining batches, on the mesh."""
    make = _gathered if run.config.data.cache == "device" else _decoded
    return make(run.batches, run.mesh)


def _decoded(batches: TrainBatches, mesh: Mesh) -> Iterator[Rows]:
    """Transfer each batch that the host decodes to the mesh while the previous one is in use."""
    sharding = batch_sharding(mesh)
    names = ("image", "category")
    return one_ahead(put_rows({name: batch[name] for name in names}, sharding) for batch in batches)


def _gathered(batches: TrainBatches, mesh: Mesh) -> Iterator[Rows]:
    """Gather the same batches from a split that is decoded once and kept on the devices.

    Each host decodes its share of the split, which is sharded over all devices as uint8: PA-100K at
    384×128 is 12 GB.
    """
    sharding = batch_sharding(mesh)
    split, processes = batches.split, jax.process_count()
    share = -(-len(split) // mesh.size) * mesh.size // processes
    first = jax.process_index() * share
    own = np.minimum(np.arange(first, first + share), len(split) - 1)
    rows = {
        "image": decode_all(split, batches.image_size, own),
        "category": batches.category[own],
    }
    everything = put_rows(rows, sharding)
    gather = jax.jit(
        lambda rows, index: jax.tree.map(lambda x: jnp.take(x, index, axis=0), rows),
        out_shardings=sharding,
    )
    for step in range(batches.start_step, len(batches)):
        yield gather(everything, batches.indices(step))


def ask_all_hosts(mesh: Mesh, request: int) -> Rows:
    """This host's request as part of a batch; the step returns the largest to all hosts."""
    own = np.full(mesh.size // jax.process_count(), request, np.int32)
    return put_rows({"request": own}, batch_sharding(mesh))


def _compile(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile in another thread, so that Ctrl-C ends the wait immediately."""
    outcome = []

    def run() -> None:
        try:
            outcome.append(lowered.compile())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="compile", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # a signal may arrive in another thread, and is handled between waits
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class Interruption:
    """A context that records the first SIGTERM or SIGINT by name; a second ends the process.

    Python delivers signals only to the main thread; in any other, nothing is recorded.
    """

    def __init__(self):
        self.name = ""
        self._handlers = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGTERM, signal.SIGINT)
            self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            # None is a handler that was not set from Python, and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name:
            os._exit(128 + number)
        self.name = signal.Signals(number).name


class Trace:
    """A trace of the steps "first:last" of `config.profile` in `workdir/profile`.

    TensorBoard and Perfetto display it.
    """

    def __init__(self, steps: str, workdir: pathlib.Path):
        self._folder = workdir / "profile"
        self._first, self._last = profiled_steps(steps) if steps else (-1, -1)
        self._running = False

    @contextlib.contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Start the trace before its first step, and annotate each step."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def end(self, step: int) -> None:
        """End the trace after its last step has completed."""
        if step == self._last:
            self.close()

    def close(self) -> None:
        """End the trace if it is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


@contextlib.contextmanager
def _full_disk_handled(config: ConfigDict, progress: Progress) -> Iterator[None]:
    """Stop the run on a write error, or only report it, as configured.

    With several hosts the run always stops: one cannot continue alone.
    """
    try:
        yield
    except OSError as error:
        if config.on_save_error == "stop" or jax.process_count() > 1:
            raise
        progress.say(f"{error}; training continues")


def _raise_not_finite(run: Run, step: int, values: Mapping[str, float]) -> NoReturn:
    """Stop the run; report the step, the losses, the pictures and the command to replay it.

    Raises:
        FloatingPointError: always.
    """
    names = [n for n in ("loss", *LOSSES, "gradient_norm") if not math.isfinite(values.get(n, 0))]
    files = run.problem.train.filename[run.batches.indices(step)].tolist()
    replayed = "training.replay(config, workdir)"
    if pathlib.Path(sys.argv[0]).name == "run.py":
        replayed = shlex.join(["python", *sys.argv, "--mode=replay"])
    raise FloatingPointError(
        f"step {step}: {', '.join(names)} not finite; the state before it is saved.\n"
        f"Its pictures: {' '.join(files)}\n"
        f"Replay it: {replayed}\n"
        "Continue without it: --config.on_nonfinite=skip"
    )


class Validation:
    """The standard protocol on the validation split of a run."""

    def __init__(self, run: Run):
        config, split = run.config, run.problem.validation
        assert split is not None
        queries, category = categories(split.attributes)
        self._split = split
        self._image_size = config.image_size
        self._tokens = build_text_table(queries, run.problem.template).tokens[:, 0]
        self._labels = GalleryLabels(category, split.identity, split.camera, split.filename)
        self._threads = config.data.threads
        self._encoder = Encoder(
            run.skeleton, run.mesh, config.eval_batch_size, deterministic=config.deterministic
        )

    def __call__(self, params: Parameters) -> dict[str, float]:
        """R1, R5, R10, mAP and mINP as fractions of 1."""
        scores = evaluate_rankings(
            self._encoder.sentences(params, self._tokens),
            self._encoder.split(params, self._split, self._image_size, threads=self._threads),
            np.arange(len(self._tokens)),
            self._labels,
            ("standard",),
            traits={},
        )["standard"]
        return {name: scores[name] for name in METRICS}
