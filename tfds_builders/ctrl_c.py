"""Keep Ctrl-C from being lost.

Python ignores an exception raised in a garbage collection callback, and JAX installs one: in a loop
that creates many objects, nearly every KeyboardInterrupt is raised there.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_lost = False


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Context in which a KeyboardInterrupt that Python ignores is recorded for `checked`."""
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
    """Raise KeyboardInterrupt if one was lost."""
    global _lost
    if _lost:
        _lost = False
        raise KeyboardInterrupt


def checked(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items; after a lost KeyboardInterrupt, raise it at the next item."""
    for item in items:
        raise_lost()
        yield item
