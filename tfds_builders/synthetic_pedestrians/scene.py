"""What is around the person: ground, walls, clutter, passers-by, and what stands in the way."""

import dataclasses

import numpy as np
from jaxtyping import Float

from tfds_builders.synthetic_pedestrians import difficulty
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Color, Frame, noise


def draw_background(
    rng: np.random.Generator, height: int, width: int
) -> Float[np.ndarray, "3 height width"]:
    """A street: ground below, something upright behind, and things in between."""
    canvas = Canvas(np.empty((3, height, width), np.float32))
    horizon = rng.uniform(0.25, 0.75)
    _fill(rng, canvas, 0, round(horizon * height))
    _fill(rng, canvas, round(horizon * height), height)
    # One unit is the picture's height, the origin its lower left corner.
    frame = Frame(complex(0, height), complex(height))
    right = width / height
    for _ in range(rng.poisson(difficulty.CLUTTER)):
        _THINGS[rng.integers(len(_THINGS))](rng, canvas, frame, right, 1 - horizon)
    canvas.pixels *= 1 + 0.03 * noise(rng, height, width, (64, 32))
    return canvas.pixels


def draw_occluder(rng: np.random.Generator, canvas: Canvas) -> None:
    """Sometimes puts something before the person: a post, a low wall, leaves or a shoulder."""
    frame = Frame(complex(0, canvas.height), complex(canvas.height))
    right = canvas.width / canvas.height
    kind, side = rng.integers(4), rng.integers(2)
    happens, share = rng.random() < difficulty.OCCLUSION, rng.uniform(*difficulty.OCCLUDED)
    color, shift = _color(rng), rng.random()
    if not happens:
        return
    edge = side * right
    if kind == 0:
        x, wide = shift * right, 0.5 * share * right
        shape = canvas.tube(frame, complex(x, 1.1), complex(x, -0.1), (wide,), flat=True)
        canvas.paint(shape, color)
    elif kind == 1:
        shape = canvas.tube(frame, complex(0, share / 2), complex(right, share / 2), (share / 2,))
        canvas.paint(shape, color, roundness=0.2)
    elif kind == 2:
        center = complex(edge, rng.uniform(0, 0.6))
        _draw_leaves(rng, canvas, frame, center, complex(0.9 * share, 0.3))
    else:
        top, wide = rng.uniform(0.55, 0.85), share * right
        shape = canvas.tube(frame, complex(edge, top), complex(edge, -0.1), (0.7 * wide, wide))
        canvas.paint(shape, color)
        head = complex(edge, top + 0.07 + wide * 0.6)
        canvas.paint(canvas.ellipse(frame, head, complex(0.05, 0.07)), 0.3 * _gray(rng))


def _fill(rng: np.random.Generator, canvas: Canvas, top: int, bottom: int) -> None:
    """Fills a band of the canvas with a plain, uneven surface."""
    height, width = bottom - top, canvas.width
    if height > 0:
        uneven = 0.1 * noise(rng, height, width, (6, 4)) + 0.05 * noise(
            rng, height, width, (24, 14)
        )
        canvas.pixels[:, top:bottom] = _gray(rng)[:, None, None] * (1 + uneven)


def _gray(rng: np.random.Generator) -> Color:
    """The color of stone, concrete or metal."""
    return (rng.uniform(0.15, 0.85) * rng.uniform(0.88, 1.12, 3)).astype(np.float32)


def _color(rng: np.random.Generator) -> Color:
    """The color of a thing: mostly a gray, sometimes any."""
    gray, bright = _gray(rng), rng.uniform(0.08, 0.8, 3).astype(np.float32)
    return bright if rng.random() < 0.3 else gray


def _draw_leaves(
    rng: np.random.Generator, canvas: Canvas, frame: Frame, center: complex, radii: complex
) -> None:
    shape = canvas.ellipse(frame, center, radii)
    if shape is not None:
        height, width = shape.coverage.shape
        leaves = noise(rng, height, width, (30, 26))
        shape = dataclasses.replace(shape, coverage=shape.coverage * np.clip(leaves + 1, 0, 1))
        green = np.array((0.2, 0.38, 0.16), np.float32) * np.float32(rng.uniform(0.4, 1.3))
        canvas.paint(shape, green[:, None, None] * (1 + 0.4 * leaves))


def _block(rng, canvas, frame, right, ground):
    """A door, a poster, a window, a car: something with straight edges."""
    x, y = rng.uniform(-0.1, right + 0.1), rng.uniform(0.5 * ground, 1)
    high, wide = rng.uniform(0.03, 0.25), rng.uniform(0.02, 0.2)
    shape = canvas.tube(frame, complex(x, y + high), complex(x, y - high), (wide,), flat=True)
    canvas.paint(shape, _color(rng), roundness=rng.uniform(0, 0.25))


def _post(rng, canvas, frame, right, ground):
    """A lamp post, a trunk, a door frame."""
    x, foot = rng.uniform(0, right), rng.uniform(0.4 * ground, ground)
    wide = rng.uniform(0.005, 0.03)
    shape = canvas.tube(frame, complex(x, 1.1), complex(x, foot), (wide,), flat=True)
    canvas.paint(shape, _gray(rng))


def _line(rng, canvas, frame, right, ground):
    """A kerb, a joint between tiles, a road marking."""
    a = complex(-0.1, rng.uniform(-0.1, ground))
    b = complex(right + 0.1, rng.uniform(-0.1, ground))
    shape = canvas.tube(frame, a, b, (rng.uniform(0.002, 0.014),))
    canvas.paint(shape, _gray(rng), roundness=0, opacity=0.7)


def _bush(rng, canvas, frame, right, ground):
    """Leaves."""
    center = complex(rng.uniform(0, right), rng.uniform(0.8 * ground, 1))
    radii = complex(rng.uniform(0.05, 0.16), rng.uniform(0.05, 0.14))
    _draw_leaves(rng, canvas, frame, center, radii)


_THINGS = (_block, _block, _post, _line, _line, _bush)
