"""What is around the person: ground, walls, clutter, passers-by, and what stands in the way."""

import dataclasses

import numpy as np
from jaxtyping import Float

from tfds_builders.synthetic_pedestrians import difficulty
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Color, Frame, Painter, noise


@dataclasses.dataclass(frozen=True)
class _Place(Painter):
    """A canvas in units of its height, from its lower left corner; the ground ends at `horizon`."""

    canvas: Canvas
    horizon: float

    @property
    def frame(self) -> Frame:
        return Frame(complex(0, self.canvas.height), complex(self.canvas.height))

    @property
    def right(self) -> float:
        return self.canvas.width / self.canvas.height

    def leaves(self, rng: np.random.Generator, center: complex, radii: complex) -> None:
        shape = self.canvas.ellipse(self.frame, center, radii)
        if shape is None:
            return
        height, width = shape.coverage.shape
        leaves = noise(rng, height, width, (30, 26))
        shape = dataclasses.replace(shape, coverage=shape.coverage * np.clip(leaves + 1, 0, 1))
        green = np.array((0.2, 0.38, 0.16), np.float32) * np.float32(rng.uniform(0.4, 1.3))
        self.canvas.paint(shape, green[:, None, None] * (1 + 0.4 * leaves))


def draw_background(
    rng: np.random.Generator, height: int, width: int
) -> Float[np.ndarray, "3 height width"]:
    """A street: ground below, something upright behind, and things in between."""
    pixels = np.empty((3, height, width), np.float32)
    horizon = rng.uniform(0.25, 0.75)
    top = round((1 - horizon) * height)
    _fill(rng, pixels[:, :top])
    _fill(rng, pixels[:, top:])
    place = _Place(Canvas(pixels), horizon)
    for _ in range(rng.poisson(difficulty.CLUTTER)):
        _THINGS[rng.integers(len(_THINGS))](rng, place)
    pixels *= 1 + 0.03 * noise(rng, height, width, (64, 32))
    return pixels


def draw_occluder(rng: np.random.Generator, canvas: Canvas) -> None:
    """Sometimes puts something before the person: a post, a low wall, leaves or a shoulder."""
    if rng.random() >= difficulty.OCCLUSION:
        return
    place = _Place(canvas, 0)
    right, share = place.right, rng.uniform(*difficulty.OCCLUDED)
    edge = right * rng.integers(2)
    kind = rng.choice(("post", "wall", "leaves", "shoulder"))
    if kind == "post":
        x = rng.uniform(0, right)
        half = 0.5 * share * right
        place.tube(complex(x, 1.1), complex(x, -0.1), (half,), _color(rng), flat=True)
    elif kind == "wall":
        y = 0.5 * share
        place.tube(complex(0, y), complex(right, y), (y,), _color(rng), roundness=0.2)
    elif kind == "leaves":
        place.leaves(rng, complex(edge, rng.uniform(0, 0.6)), complex(0.9 * share, 0.3))
    else:
        neck, half = rng.uniform(0.55, 0.85), share * right
        place.tube(complex(edge, neck), complex(edge, -0.1), (0.7 * half, half), _color(rng))
        head = complex(edge, neck + 0.6 * half + 0.06)
        place.tube(head, head + 0.03j, (0.05,), 0.3 * _gray(rng))


def _fill(rng: np.random.Generator, pixels: Float[np.ndarray, "3 height width"]) -> None:
    """Fills a part of a picture with a plain, uneven surface."""
    _, height, width = pixels.shape
    uneven = 0.1 * noise(rng, height, width, (6, 4)) + 0.05 * noise(rng, height, width, (24, 14))
    pixels[:] = _gray(rng)[:, None, None] * (1 + uneven)


def _gray(rng: np.random.Generator) -> Color:
    """The color of stone, concrete or metal."""
    return (rng.uniform(0.15, 0.85) * rng.uniform(0.88, 1.12, 3)).astype(np.float32)


def _color(rng: np.random.Generator) -> Color:
    """The color of a thing: mostly a gray, sometimes any."""
    gray, bright = _gray(rng), rng.uniform(0.08, 0.8, 3).astype(np.float32)
    return bright if rng.random() < 0.3 else gray


def _block(rng: np.random.Generator, place: _Place) -> None:
    """A door, a poster, a window, a car: something with straight edges."""
    middle = complex(rng.uniform(-0.1, place.right + 0.1), rng.uniform(0.5 * place.horizon, 1))
    half_height, half_width = rng.uniform(0.03, 0.25) * 1j, rng.uniform(0.02, 0.2)
    top, bottom, roundness = middle + half_height, middle - half_height, rng.uniform(0, 0.25)
    place.tube(top, bottom, (half_width,), _color(rng), flat=True, roundness=roundness)


def _post(rng: np.random.Generator, place: _Place) -> None:
    """A lamp post, a trunk, a door frame."""
    x, foot = rng.uniform(0, place.right), place.horizon * rng.uniform(0.4, 1)
    half_width = rng.uniform(0.005, 0.03)
    place.tube(complex(x, 1.1), complex(x, foot), (half_width,), _gray(rng), flat=True)


def _line(rng: np.random.Generator, place: _Place) -> None:
    """A kerb, a joint between tiles, a road marking."""
    left = complex(-0.1, rng.uniform(-0.1, place.horizon))
    right = complex(place.right + 0.1, rng.uniform(-0.1, place.horizon))
    half_width = rng.uniform(0.002, 0.014)
    place.tube(left, right, (half_width,), _gray(rng), roundness=0, opacity=0.7)


def _bush(rng: np.random.Generator, place: _Place) -> None:
    center = complex(rng.uniform(0, place.right), rng.uniform(0.8 * place.horizon, 1))
    radii = complex(rng.uniform(0.05, 0.16), rng.uniform(0.05, 0.14))
    place.leaves(rng, center, radii)


_THINGS = (_block, _block, _post, _line, _line, _bush)
