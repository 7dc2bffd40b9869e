"""SIGTERM and SIGINT ask the run to save and stop; a second one ends it at once."""

import os
import signal
from types import FrameType


class Interrupted(Exception):
    """The run saved its state and stopped after a signal; the same command goes on with it."""

    exit_code = 75  # EX_TEMPFAIL


class Interruption:
    """While entered, notes the first SIGTERM or SIGINT by name instead of ending the process."""

    def __init__(self):
        self.name = ""

    def __enter__(self) -> "Interruption":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name:
            os._exit(128 + number)
        self.name = signal.Signals(number).name
