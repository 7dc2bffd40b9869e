"""Arrays between a checkpoint and a model, with every key of both sides accounted for."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aima_jax.convert.files import Checkpoint
from aima_jax.convert.tables import HARMLESS, Row
from aima_jax.parameters import Parameters
from aima_jax.sharding import put_whole, state_shardings

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """Some arrays of ours, which are one of theirs."""

    theirs: str
    ours: tuple[str, ...]
    axes: tuple[int, ...] | None

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """Our arrays out of theirs."""
        parts = np.split(array, len(self.ours))
        return [part if self.axes is None else part.transpose(self.axes) for part in parts]

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Their array out of ours."""
        if self.axes is not None:
            arrays = [array.transpose(np.argsort(self.axes)) for array in arrays]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    def our_shape(self, shape: Shape) -> Shape | None:
        """Shape of each array of ours in one of theirs, None where it cannot be."""
        if len(self.ours) > 1:
            if not shape or shape[0] % len(self.ours):
                return None
            shape = (shape[0] // len(self.ours), *shape[1:])
        if self.axes is None:
            return shape
        return tuple(shape[axis] for axis in self.axes) if len(shape) == len(self.axes) else None

    def their_shape(self, shape: Shape) -> Shape:
        """Shape of their array, given that of each of ours."""
        if self.axes is not None:
            shape = tuple(shape[axis] for axis in np.argsort(self.axes))
        return (shape[0] * len(self.ours), *shape[1:]) if len(self.ours) > 1 else shape


def identity(names: Iterable[str]) -> list[Entry]:
    """Entries of a file that has our own names."""
    return [Entry(name, (name,), None) for name in names]


def entries_of(names: Iterable[str], table: Sequence[Row]) -> list[Entry]:
    """Finds each of our names in a table, for the way out and to know what a file must hold.

    Raises:
        ValueError: a name is in no row.
    """
    entries = {}
    for name in names:
        for row in table:
            match = next((m for ours in row.ours if (m := _match(ours, name))), None)
            if match:
                entry = _entry(row, match)
                entries[entry.theirs] = entry
                break
        else:
            raise ValueError(f"this layout has no place for {name}")
    return list(entries.values())


def found_shapes(shapes: Mapping[str, Shape], table: Sequence[Row]) -> dict[str, Shape]:
    """What a file tells about our arrays: their shapes by our names, as far as it has them."""
    found = {}
    for name, shape in shapes.items():
        for row in table:
            if match := _match(row.theirs, name):
                entry = _entry(row, match)
                if (ours := entry.our_shape(shape)) is not None:
                    found.update(dict.fromkeys(entry.ours, ours))
                break
    return found


def _match(pattern: str, name: str) -> re.Match | None:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name)


def _entry(row: Row, match: re.Match) -> Entry:
    def fill(pattern: str) -> str:
        return pattern.replace("*", match[1]) if "*" in pattern else pattern

    return Entry(fill(row.theirs), tuple(fill(ours) for ours in row.ours), row.axes)


def check_complete(
    checkpoint: Checkpoint,
    entries: Sequence[Entry],
    expected: Mapping[str, Shape],
    *,
    what: str,
) -> None:
    """Sees to it that a file holds what a model needs, and nothing else.

    Args:
        entries: how the names of the model are called in the file.
        expected: shapes of the model's arrays by our names.
        what: the model in words, for the message.

    Raises:
        ValueError: it lists every key that is missing, unexpected or of wrong shape.
    """
    needed = {entry.theirs: entry.their_shape(expected[entry.ours[0]]) for entry in entries}
    extra = checkpoint.shapes.keys() - needed.keys()
    problems = {
        "missing": sorted(needed.keys() - checkpoint.shapes.keys()),
        "unexpected": sorted(
            name for name in extra if not any(re.fullmatch(key, name) for key in HARMLESS)
        ),
        "of wrong shape": [
            f"{name} is {checkpoint.shapes[name]}, expected {shape}"
            for name, shape in sorted(needed.items())
            if name in checkpoint.shapes and checkpoint.shapes[name] != shape
        ],
    }
    if any(problems.values()):
        raise ValueError(
            f"{checkpoint.path} does not hold {what}:"
            + "".join(
                f"\n  {problem} ({len(names)}): {', '.join(names)}"
                for problem, names in problems.items()
                if names
            )
        )


def read_parameters(
    checkpoint: Checkpoint,
    entries: Sequence[Entry],
    *,
    mesh: Mesh | None,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda name, array: array,
) -> Parameters:
    """Reads arrays one after the other, each straight to its place.

    Args:
        checkpoint: checked by `check_complete`.
        entries: what to read.
        mesh: the devices that the arrays are spread over; the default device if None.
        change: what is done to an array of ours before it is placed.

    Raises:
        ValueError: an array holds whole numbers, or some that are not finite.
    """
    params = {}
    for entry in entries:
        array = checkpoint.read(entry.theirs)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{checkpoint.path}: {entry.theirs} holds {array.dtype}, expected floating-point "
                "numbers"
            )
        for name, part in zip(entry.ours, entry.split(array), strict=True):
            part = np.ascontiguousarray(part, np.float32)
            if not np.isfinite(part).all():
                raise ValueError(
                    f"{checkpoint.path}: {entry.theirs} has numbers that are not finite: the file "
                    "is damaged, or its training came to nothing"
                )
            params[name] = place(change(name, part), mesh)
    return params


def place(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """Puts an array on the devices of a mesh, each of which takes its own part of it."""
    if mesh is None:
        return jnp.array(array)
    sharding = state_shardings(jax.ShapeDtypeStruct(array.shape, array.dtype), mesh)
    return put_whole(array, sharding)
