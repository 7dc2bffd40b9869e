"""From a description and a few seeds to the bytes of a picture: scene, figure, camera."""

import cmath
import dataclasses
import io
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from aima_jax.attributes import Description
from tfds_builders.synthetic_pedestrians.body import Look, Pose
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Color, Frame, Painter, noise
from tfds_builders.synthetic_pedestrians.figure import draw_person
from tfds_builders.synthetic_pedestrians.schema import VIEWS, draw_description, seen_from

# Difficulty of the pictures: every strength and probability worth tuning.
# Scene.
CLUTTER = 6  # mean number of things in the background
PASSERS_BY = 0.15  # chance of another person behind
OCCLUSION = 0.1  # chance that something stands in front of the person
OCCLUDED = (0.08, 0.3)  # share of the picture that it covers

# Framing.
FILLED = (0.82, 0.95)  # height of an upright person in picture heights
SHIFT = 0.03  # largest shift of the person in picture heights
ROLL = 2.5  # largest turn of the camera in degrees

# Light and camera.
EXPOSURE = (0.75, 1.2)
CONTRAST = (0.7, 1.15)
COLOR_CAST = 0.1  # largest gain or loss of red and of blue
RESOLUTION = (112, 240)  # rows that the camera resolves
NOISE = (0.0, 0.03)  # standard deviation, 1 being white
JPEG_QUALITY = (40, 90)


def render(
    description: Description,
    *,
    picture: tuple[int, ...],
    identity: tuple[int, ...],
    camera: tuple[int, ...],
) -> bytes:
    """Render a person, described in every group of the schema, as a JPEG file.

    Besides the description, three seeds decide what varies by picture (pose, framing, scene,
    light), by identity, and by camera.
    """
    generators = map(np.random.default_rng, np.random.SeedSequence(picture).spawn(7))
    pose, framing, scene, passer_by, occlusion, light, file = generators
    look, shot = Look.draw(np.random.default_rng(identity)), Shot.draw(framing)
    folds = _folds(scene, shot)
    canvas = Canvas(draw_background(scene, shot.height, shot.width), light=shot.light, folds=folds)
    _draw_passer_by(passer_by, canvas, shot)
    shadow = canvas.ellipse(shot.frame, 0.04 + 0.02j, 0.19 + 0.035j)
    canvas.paint(shadow, np.zeros(3), opacity=0.4)
    draw_person(canvas, shot.frame, description, look, Pose.draw(pose))
    draw_occluder(occlusion, canvas)
    return jpeg(file, expose(light, np.random.default_rng(camera), canvas.pixels))


def _folds(rng: np.random.Generator, shot: "Shot") -> Float[np.ndarray, "height width"]:
    """Change in brightness that wrinkles would give cloth at each pixel."""
    broad = noise(rng, shot.height, shot.width, (26, 20))
    return 0.6 * (broad + noise(rng, shot.height, shot.width, (56, 40)))


def _draw_passer_by(rng: np.random.Generator, canvas: Canvas, shot: "Shot") -> None:
    """Sometimes draw another person, farther away and to one side."""
    if rng.random() < PASSERS_BY:
        size, side = rng.uniform(0.45, 0.75), rng.choice((-1, 1))
        feet = shot.frame.place(complex(side * rng.uniform(0.17, 0.27), rng.uniform(0.08, 0.3)))
        other = seen_from(draw_description(rng), str(rng.choice(VIEWS)))
        frame = Frame(feet, shot.frame.unit * size)
        draw_person(canvas, frame, other, Look.draw(rng), Pose.draw(rng))


_HEIGHT = (96, 256)
_ASPECT = (0.4, 0.58)  # width by height


@dataclasses.dataclass(frozen=True)
class Shot:
    """One picture's size in pixels and where its person is."""

    height: int
    width: int
    frame: Frame
    light: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Shot":
        low, high = _HEIGHT
        height = round(low * (high / low) ** rng.random())
        width = round(height * rng.uniform(*_ASPECT))
        filled = rng.uniform(*FILLED)
        roll = math.radians(ROLL * rng.uniform(-1, 1))
        shift = SHIFT * rng.uniform(-1, 1, 2)
        # The middle of a body, at half its height, is near the middle of the picture.
        middle = complex(width / 2 + shift[0] * height, height / 2 + shift[1] * height)
        unit = cmath.rect(filled * height, roll)
        frame = Frame(middle - unit * (0.5j).conjugate(), unit)
        return cls(height, width, frame, rng.uniform(-0.9, 0.9))


def expose(
    rng: np.random.Generator,
    camera: np.random.Generator,
    pixels: Float[np.ndarray, "3 height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Simulate the sensor: `camera` draws the parameters fixed for a camera, `rng` the rest."""
    _, height, width = pixels.shape
    cast = camera.uniform(-1, 1, 2) * 0.6 + rng.uniform(-1, 1, 2) * 0.4
    gains = np.array((1 + COLOR_CAST * cast[0], 1, 1 + COLOR_CAST * cast[1]))
    gains *= rng.uniform(*EXPOSURE)
    contrast, gray = rng.uniform(*CONTRAST), rng.uniform(0.3, 0.6)
    uneven = 1 + 0.12 * noise(rng, height, width, (3, 2))
    scale = (255 * contrast * gains).astype(np.float32)[:, None, None]
    image = np.clip(pixels * uneven * scale + np.float32(255 * gray * (1 - contrast)), 0, 255)
    sharp = Image.fromarray(np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0)))
    blurred = _blur(sharp, rng.uniform(*RESOLUTION))
    grain = rng.standard_normal((height, width, 3), np.float32) * np.float32(
        255 * rng.uniform(*NOISE)
    )
    return np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8)


def _blur(image: Image.Image, resolution: float) -> Image.Image:
    """The picture as if taken with `resolution` rows of pixels."""
    if resolution >= image.height:
        return image
    small = (max(round(resolution * image.width / image.height), 1), round(resolution))
    return image.resize(small, Image.Resampling.BILINEAR).resize(
        image.size, Image.Resampling.BICUBIC
    )


def jpeg(rng: np.random.Generator, image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The picture as a JPEG file of random quality."""
    file = io.BytesIO()
    quality = int(rng.integers(*JPEG_QUALITY, endpoint=True))
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


@dataclasses.dataclass(frozen=True)
class _Place(Painter):
    """A canvas in units of its height, from its lower left corner; the ground ends at `horizon`."""

    canvas: Canvas
    horizon: float

    @property
    def frame(self) -> Frame:  # pyright: ignore[reportIncompatibleVariableOverride]  (read alone)
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
    for _ in range(rng.poisson(CLUTTER)):
        _THINGS[rng.integers(len(_THINGS))](rng, place)
    pixels *= 1 + 0.03 * noise(rng, height, width, (64, 32))
    return pixels


def draw_occluder(rng: np.random.Generator, canvas: Canvas) -> None:
    """Sometimes put an occluder before the person: a post, a low wall, leaves or a shoulder."""
    if rng.random() >= OCCLUSION:
        return
    place = _Place(canvas, 0)
    right, share = place.right, rng.uniform(*OCCLUDED)
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
    """Fill a part of a picture with a plain, uneven surface."""
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
