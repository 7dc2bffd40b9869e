"""A canvas on which shapes are painted, anti-aliased and shaded as if they were round.

Points are complex numbers, x + iy: a rotation is a multiplication. A frame places them on the
canvas, so that a figure is drawn in its own units, upright, with y pointing up.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from PIL import Image

Color = Float[np.ndarray, "3"]


@dataclasses.dataclass(frozen=True)
class Frame:
    """The drawing's origin on the canvas, in pixels, and its unit, size and rotation."""

    origin: complex
    unit: complex

    @property
    def scale(self) -> float:
        return abs(self.unit)

    def place(self, point: complex) -> complex:
        """The pixel position of a point, y pointing down."""
        return self.origin + self.unit * point.conjugate()


@dataclasses.dataclass(frozen=True)
class Shape:
    """The pixels that a shape covers, and their coordinates on the shape.

    `along` runs from its start to its end and `across` from its middle, positive to the right of a
    shape that hangs down; both are in pixels, with `scale` pixels per unit of the drawing. `side`
    is -1 and 1 at its edges.
    """

    window: tuple[slice, slice]
    coverage: Float[np.ndarray, "height width"]
    along: Float[np.ndarray, "height width"]
    across: Float[np.ndarray, "height width"]
    side: Float[np.ndarray, "height width"]
    scale: float


class Canvas:
    """An image of `height` × `width` to paint on; `pixels` are red, green, blue from 0 to 1.

    `light` is the direction of the light, from -1 (left) to 1 (right); `folds` modulates the
    brightness of cloth.
    """

    def __init__(
        self,
        pixels: Float[np.ndarray, "3 height width"],
        *,
        light: float = 0.0,
        folds: Float[np.ndarray, "height width"] | None = None,
    ):
        self.pixels = pixels
        self.light = light
        self.folds = folds
        _, self.height, self.width = pixels.shape
        self._x = np.arange(self.width, dtype=np.float32)[None, :]
        self._y = np.arange(self.height, dtype=np.float32)[:, None]

    def tube(
        self,
        frame: Frame,
        start: complex,
        end: complex,
        widths: tuple[float, ...],
        *,
        right_widths: tuple[float, ...] | None = None,
        flat: bool = False,
    ) -> Shape | None:
        """A limb from `start` to `end` with evenly spaced half widths and round or flat ends.

        `right_widths` are the widths of the right-hand side if it differs from the left. None if no
        part of it is on the canvas.
        """
        a, b = frame.place(start), frame.place(end)
        length = max(abs(b - a), 1e-3)
        direction = (b - a) / length
        reach = frame.scale * max(*widths, *(right_widths or widths)) + 1
        if flat:
            spread = reach * complex(abs(direction.imag), abs(direction.real)) + (1 + 1j)
        else:
            spread = reach * (1 + 1j)
        window = self._window(a, b, spread)
        if window is None:
            return None
        rows, columns = window
        x, y = self._x[:, columns] - a.real, self._y[rows] - a.imag
        along = x * direction.real + y * direction.imag
        across = x * direction.imag - y * direction.real
        half = _profile(widths, along, length, frame.scale)
        if right_widths is not None:
            right = _profile(right_widths, along, length, frame.scale)
            half = np.where(across > 0, right, half)
        if flat:
            inside = np.minimum(np.minimum(along, length - along), half - np.abs(across))
        else:
            beyond = along - _clip(along, 0, length)
            inside = half - np.sqrt(across * across + beyond * beyond)
        side = across / np.maximum(half, 1e-3)
        return Shape(window, _clip(inside + 0.5, 0, 1), along, across, side, frame.scale)

    def ellipse(
        self, frame: Frame, center: complex, radii: complex, turn: complex = 1
    ) -> Shape | None:
        """An ellipse with radii `radii.real` across and `radii.imag` up, rotated by `turn`.

        None if no part of it is on the canvas.
        """
        middle = frame.place(center)
        axis = frame.unit * complex(turn).conjugate()
        axis /= abs(axis)
        reach = frame.scale * max(radii.real, radii.imag) + 1
        window = self._window(middle, middle, reach * (1 + 1j))
        if window is None:
            return None
        rows, columns = window
        x, y = self._x[:, columns] - middle.real, self._y[rows] - middle.imag
        across = x * axis.real + y * axis.imag
        along = y * axis.real - x * axis.imag
        side = across * (1 / (radii.real * frame.scale))
        height = along * (1 / (radii.imag * frame.scale))
        distance = np.sqrt(side * side + height * height)
        inside = (1 - distance) * (min(radii.real, radii.imag) * frame.scale)
        return Shape(window, _clip(inside + 0.5, 0, 1), along, across, side, frame.scale)

    def paint(
        self,
        shape: Shape | None,
        color: Color | Float[np.ndarray, "3 height width"],
        *,
        roundness: float = 0.35,
        cloth: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Paint a shape, darker towards its edges by `roundness`, wrinkled by `cloth`."""
        if shape is None:
            return
        color = np.asarray(color, np.float32)
        if color.ndim == 1:
            color = color[:, None, None]
        shade = 1 + roundness * shape.side * (0.6 * self.light - shape.side)
        if cloth and self.folds is not None:
            shade = shade + cloth * self.folds[shape.window]
        there = self.pixels[:, *shape.window]
        coverage = shape.coverage if opacity == 1 else opacity * shape.coverage
        there += coverage * (color * shade - there)

    def _window(self, a: complex, b: complex, spread: complex) -> tuple[slice, slice] | None:
        left = max(int(min(a.real, b.real) - spread.real), 0)
        right = min(int(max(a.real, b.real) + spread.real) + 2, self.width)
        top = max(int(min(a.imag, b.imag) - spread.imag), 0)
        bottom = min(int(max(a.imag, b.imag) + spread.imag) + 2, self.height)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)


class Painter:
    """A painter of shapes on a canvas, in the units of its frame."""

    canvas: Canvas
    frame: Frame

    def tube(
        self,
        start: complex,
        end: complex,
        widths: tuple[float, ...],
        color: Color,
        *,
        flat: bool = False,
        **paint: float,
    ) -> None:
        shape = self.canvas.tube(self.frame, start, end, widths, flat=flat)
        self.canvas.paint(shape, color, **paint)


def _profile(
    widths: tuple[float, ...], along: Float[np.ndarray, "height width"], length: float, scale: float
) -> Float[np.ndarray, "height width"] | float:
    """The half width in pixels at each pixel, from half widths in units of `scale` pixels."""
    if len(widths) == 1:
        return widths[0] * scale
    if len(widths) == 2:
        slope = (widths[1] - widths[0]) * scale / length
        return widths[0] * scale + slope * _clip(along, 0, length)
    places = [length * index / (len(widths) - 1) for index in range(len(widths))]
    return np.interp(along, places, np.multiply(widths, scale)).astype(np.float32)


def _clip(
    values: Float[np.ndarray, "height width"], low: float, high: float
) -> Float[np.ndarray, "height width"]:
    # On arrays this small, np.clip is mostly overhead.
    return np.minimum(np.maximum(values, low), high)


def noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    """Smooth noise of about unit amplitude with `cells` hills down and across."""
    coarse = rng.random(cells, np.float32) * 3.4 - 1.7
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
