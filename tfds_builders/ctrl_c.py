"""Ctrl-C that is not lost.

Python ignores an exception that is raised in a callback of its garbage collector, and JAX has such
a callback: of a loop that makes many objects, nearly every KeyboardInterrupt ends there.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_lost = False


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Within, a KeyboardInterrupt that Python ignores is noted for `checked`."""
    global _lost
    show = sys.unraisablehook

    def note(unraisable: "sys.UnraisableHookArgs") -> None:
        global _lost
        if unraisable.exc_type is KeyboardInterrupt:
            _lost = True
        else:
            show(unraisable)

    _lost, sys.unraisablehook = False, note
    try:
        yield
        raise_lost()
    finally:
        sys.unraisablehook = show


def raise_lost() -> None:
    """Raise KeyboardInterrupt where one was lost."""
    global _lost
    if _lost:
        _lost = False
        raise KeyboardInterrupt


def checked(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items; raise KeyboardInterrupt at the next one after it was lost."""
    for item in items:
        raise_lost()
        yield item
