"""Shows how far a dataset is prepared: a bar on a terminal, plain lines where output is piped."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10

_Item = TypeVar("_Item")


def progress(items: Iterable[_Item], total: int, name: str) -> Iterator[_Item]:
    """Yields the items, and shows on stderr how many of `total` are done."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=name, total=total, unit="picture", dynamic_ncols=True)
        return
    start = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if count == total or now - shown >= _SECONDS_BETWEEN_LINES:
            shown = now
            rate = count / max(now - start, 1e-9)
            left = tqdm.format_interval((total - count) / rate)
            print(
                f"{name}: {count}/{total} pictures, {rate:.0f}/s, left {left}",
                file=sys.stderr,
                flush=True,
            )
