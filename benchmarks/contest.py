"""Contenders of a benchmark that take turns, each in a process of its own, and their memory."""

import importlib
import multiprocessing
import time
from collections.abc import Callable, Mapping
from typing import Any

Answer = dict[str, Any]


def clear_peak() -> None:
    """Start the high-water mark of this process's memory anew; Linux keeps it."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def host_peak() -> int:
    """The highest resident set of this process in bytes, libraries included."""
    with open("/proc/self/status") as file:
        marks = dict(line.split(":", 1) for line in file)
    return int(marks["VmHWM"].split()[0]) * 1024


def matmul_rate(size: int, multiply: Callable[[int], object]) -> Answer:
    """FLOP/s of products of two square matrices, the best of four times ten.

    Args:
        size: rows and columns.
        multiply: takes so many products, and waits for the last.
    """
    times = []
    for _ in range(4):
        start = time.perf_counter()
        multiply(10)
        times.append(time.perf_counter() - start)
    return {"matmul": 10 * 2 * size**3 / min(times)}


class Contender:
    """A process that makes something ready once, then does it whenever it is its turn.

    Args:
        place: "module:function"; the function gets the arguments and returns what is to be done at
            each turn, which returns an answer. The process imports nothing of the others.
    """

    def __init__(self, place: str, **arguments):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(place, arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_) -> None:
        self._connection.close()
        self._process.join()

    def turn(self) -> Answer:
        """Has it done once.

        Raises:
            EOFError: the process has ended, for want of memory as a rule.
        """
        time.sleep(0.3)  # threads of the contender before may still be spinning
        self._connection.send(None)
        return self._connection.recv()


def do_once(place: str, **arguments) -> None:
    """Has a function called in a process of its own, which leaves nothing in those of others."""
    with Contender(place, **arguments):
        pass


def _serve(place: str, arguments: Mapping[str, Any], connection) -> None:
    module, name = place.split(":")
    act = getattr(importlib.import_module(module), name)(**arguments)
    connection.send(None)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(act())
