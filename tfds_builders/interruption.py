"""Ctrl-C that is not lost.

Python ignores an exception that is raised in a callback of its garbage collector or in a `__del__`,
and JAX has such a callback: a KeyboardInterrupt that happens to be raised there goes by unnoticed.
"""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

_Item = TypeVar("_Item")
_noted = False


def catch() -> None:
    """From now on SIGINT is noted before it raises KeyboardInterrupt."""
    global _noted
    _noted = False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    _noted = True
    signal.default_int_handler(number, frame)


def check() -> None:
    """Raises KeyboardInterrupt where one was lost."""
    if _noted:
        raise KeyboardInterrupt


def checked(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yields the items; raises KeyboardInterrupt at the next one after it was lost."""
    for item in items:
        check()
        yield item
