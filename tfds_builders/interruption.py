"""Ctrl-C that is not lost.

Python ignores an exception that is raised in a callback of its garbage collector or in a `__del__`,
and JAX has such a callback: a KeyboardInterrupt that happens to be raised there goes by unnoticed.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

_Item = TypeVar("_Item")
_noted = False


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Within, SIGINT is noted as it raises KeyboardInterrupt, for `check`.

    Nothing changes outside of the main thread, or where SIGINT has another handler than Python's.
    """
    global _noted
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    show = sys.unraisablehook

    def show_others(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            show(unraisable)

    try:
        sys.unraisablehook = show_others
        signal.signal(signal.SIGINT, _note)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = show
        _noted = False


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
