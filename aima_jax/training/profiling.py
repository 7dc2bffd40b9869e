"""A trace of a few steps, for TensorBoard or Perfetto."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax


class Profile:
    """Traces the steps "first:last" of `config.profile` into `workdir/profile`.

    Raises:
        ValueError: the field is not of that form.
    """

    def __init__(self, steps: str, workdir: pathlib.Path):
        self._folder = workdir / "profile"
        self._first = self._last = -1
        if steps:
            first, _, last = steps.partition(":")
            if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
                raise ValueError(f'config.profile={steps!r} must be two steps, like "100:105"')
            self._first, self._last = int(first), int(last)

    @contextlib.contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Starts the trace before its first step; ends it once its last one is through."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def end(self, step: int) -> None:
        """Ends the trace after its last step, whose result has been waited for."""
        if step == self._last:
            jax.profiler.stop_trace()
