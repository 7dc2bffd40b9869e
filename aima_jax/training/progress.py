"""What a person sees of a run: a bar on a terminal, plain lines where output is piped."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from aima_jax.losses import LOSSES


class Progress:
    """Shows losses, images/s, the share of time spent waiting for data, and the time left.

    Args:
        total: steps of the whole run.
        first_step: where it starts or resumes.
        batch_size: images a step.
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
        """Images/s and the share of time waiting since the last call.

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

    def pause(self, step: int, waited: float) -> None:
        """Starts the next rates anew, after something that is no step; arguments as of `rates`."""
        self._since = (step, time.perf_counter(), waited)

    def advance(self, step: int) -> None:
        """Moves the bar to the number of steps done."""
        self._bar.update(step - self._bar.n)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the losses and rates of a logged step."""
        rate = values["images_per_second"]
        shown = {
            name: f"{value:.3g}" for name, value in values.items() if name in ("loss", *LOSSES)
        }
        shown["images/s"] = f"{rate:.1f}"
        shown["waiting"] = f"{values['waiting_for_data']:.0%}"
        self._bar.set_postfix(shown)
        if self._lines:
            left = tqdm.format_interval((self._total - step) * self._batch_size / max(rate, 1e-9))
            facts = "  ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._total}  {facts}  left {left}", flush=True)

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._lines:
            print(text, flush=True)
        elif not self._bar.disable:
            self._bar.write(text)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
