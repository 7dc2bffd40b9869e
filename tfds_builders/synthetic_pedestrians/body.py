"""A figure before it is drawn: its look, its build and its joints.

Lengths are in units of the height of a person standing upright; the ground is at y = 0.
"""

import cmath
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from aima_jax.attributes import Description
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Color, Frame, Painter

# Each named color is between two shades.
_SHADES = {
    "black": ((16, 16, 19), (40, 40, 46)),
    "white": ((212, 212, 210), (246, 246, 246)),
    "gray": ((100, 101, 104), (152, 153, 158)),
    "red": ((142, 16, 24), (216, 42, 40)),
    "yellow": ((206, 160, 22), (246, 214, 76)),
    "green": ((18, 84, 40), (72, 156, 76)),
    "blue": ((24, 52, 128), (66, 118, 212)),
    "purple": ((78, 32, 116), (140, 78, 178)),
    "pink": ((228, 116, 152), (248, 172, 196)),
    "brown": ((78, 48, 26), (134, 88, 52)),
    "tan": ((150, 108, 62), (186, 142, 92)),
    "navy": ((20, 26, 60), (36, 46, 92)),
    "orange": ((204, 92, 20), (238, 132, 44)),
    "silver": ((150, 150, 150), (214, 214, 212)),
    "blond": ((176, 138, 76), (214, 180, 116)),
    "skin": ((112, 72, 50), (238, 196, 168)),
}
_HAIR = ("black", "black", "black", "brown", "brown", "blond")
_BAG = ("black", "brown", "tan", "red", "blue", "green", "purple", "orange", "navy")
_HAT = ("white", "red", "blue", "green", "yellow", "tan", "navy", "orange", "purple")
_SHOES = ("black", "black", "white", "white", "gray", "brown", "red", "blue")
_PALE, _DARK = ("white", "white", "yellow", "pink"), ("black", "black", "navy", "brown")
_DARK_CLOTH = frozenset(("black", "red", "green", "blue", "purple", "brown"))
_BOOTS = {"black": ("tan", "brown"), "brown": ("black",), "blue": ("tan", "brown", "black")}
_ANY_BOOTS = ("black", "brown", "tan")


def shade(color: str, place: float) -> Color:
    """A shade of a named color, from its darkest at 0 to its lightest at 1."""
    dark, light = np.array(_SHADES[color], np.float32) / 255
    return dark + np.float32(place) * (light - dark)


@dataclasses.dataclass(frozen=True)
class Look:
    """The traits of one identity as numbers from 0 to 1, drawn independently of its attributes.

    Two descriptions of one identity thus differ only in what is described.
    """

    skin: float
    hair: float
    hair_cut: float
    upper: float
    lower: float
    contrast: float
    pattern: float
    bag: float
    hat: float
    shoes: float
    breadth: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Look":
        return cls(*rng.random(len(dataclasses.fields(cls))).tolist())

    def skin_color(self) -> Color:
        return shade("skin", self.skin)

    def hair_color(self, age: str) -> Color:
        if age == "old":
            return shade("silver", self.hair)
        return _pick(_HAIR, self.hair) * np.float32(0.4 + 0.6 * self.skin)

    def contrast_color(self, cloth: str) -> Color:
        """The color of patterns on cloth of that color."""
        return _pick(_PALE if cloth in _DARK_CLOTH else _DARK, self.contrast)

    def bag_color(self, *cloths: str) -> Color:
        """A bag color that differs from the clothes behind the bag."""
        return _pick(tuple(color for color in _BAG if color not in cloths), self.bag)

    def hat_color(self) -> Color:
        return _pick(_HAT, self.hat)

    def shoe_color(self) -> Color:
        return _pick(_SHOES, self.shoes)

    def boot_color(self, lower: str) -> Color:
        """A boot color that differs from the trousers tucked into the boots."""
        return _pick(_BOOTS.get(lower, _ANY_BOOTS), self.shoes)


def _pick(colors: tuple[str, ...], place: float) -> Color:
    """One of the colors and its shade, both chosen by `place` between 0 and 1."""
    index, rest = divmod(place * len(colors), 1)
    return shade(colors[int(index)], rest)


@dataclasses.dataclass(frozen=True)
class Build:
    """Proportions: half heights and half widths of body parts, as seen in the view."""

    head: complex
    neck_y: float
    hip_y: float
    knee_y: float
    shoulder: float
    chest: float
    waist: float
    hip: float
    limb: float
    arm: float

    @classmethod
    def of(cls, description: Description, look: Look) -> "Build":
        """The build of an identity, given age, gender and view."""
        child = description["age"] == "child"
        woman = description["gender"] == "female"
        breadth = 0.9 + 0.2 * look.breadth
        if child:
            shoulder, chest, waist, hip = (0.098, 0.098, 0.093, 0.096)
            if woman:
                shoulder, waist, hip = (0.088, 0.082, 0.1)
        elif woman:
            shoulder, chest, waist, hip = (0.099, 0.096, 0.074, 0.112)
        else:
            shoulder, chest, waist, hip = (0.135, 0.13, 0.107, 0.096)
        if description["view"] == "side":
            shoulder, chest, waist, hip = 0.05, chest * 0.72, waist * 0.84, hip * 0.84
        return cls(
            head=complex(0.077, 0.1) if child else complex(0.057, 0.076),
            neck_y=0.775 if child else 0.825,
            hip_y=0.43 if child else 0.5,
            knee_y=0.235 if child else 0.275,
            shoulder=shoulder * breadth,
            chest=chest * breadth,
            waist=waist * breadth,
            hip=hip * breadth,
            limb=(0.92 if woman or child else 1.06) * breadth,
            arm=0.29 if child else 0.33,
        )


@dataclasses.dataclass(frozen=True)
class Pose:
    """Posture, which changes while walking: angles in degrees, or numbers from 0 to 1.

    `facing` is 1 to the right and -1 to the left, `carrying` the side of what is carried.
    """

    facing: int
    carrying: int
    stride: float
    knees: float
    swing: float
    spread: tuple[float, float]
    elbows: tuple[float, float]
    lean: float
    head_turn: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        signs = rng.integers(0, 2, 2) * 2 - 1
        spread = rng.uniform(4, 17, 2)
        elbows = rng.uniform(0, 32, 2) + 75 * (rng.random(2) < 0.18)
        return cls(
            facing=int(signs[0]),
            carrying=int(signs[1]),
            stride=rng.uniform(-1, 1),
            knees=rng.random(),
            swing=rng.uniform(0.4, 1.2),
            spread=tuple(spread.tolist()),
            elbows=tuple(elbows.tolist()),
            lean=rng.uniform(-2, 5),
            head_turn=rng.uniform(-1, 1),
        )


@dataclasses.dataclass(frozen=True)
class Limb:
    """An arm or a leg by its joints; `toward` says how far its step comes toward the camera."""

    root: complex
    middle: complex
    end: complex
    toward: float = 0.0


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The joints of a figure; in a side view, the second arm and leg are the nearer ones.

    `turned` is -1 or 1 for someone seen from the side and facing left or right, else 0.
    """

    build: Build
    turned: int
    head: complex
    neck: complex
    waist: complex
    hip: complex
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]


def skeleton(description: Description, look: Look, pose: Pose) -> Skeleton:
    """The joints of a described person in a pose."""
    build = Build.of(description, look)
    old = description["age"] == "old"
    carrying = description["bag"] == "handbag"
    if description["view"] == "side":
        return _from_the_side(build, pose, old=old, carrying=carrying)
    return _from_front_or_back(build, pose, old=old, carrying=carrying)


def _from_front_or_back(build: Build, pose: Pose, *, old: bool, carrying: bool) -> Skeleton:
    stoop = 0.03 if old else 0.0
    hip = complex(0, build.hip_y)
    neck = complex(0.004 * pose.lean, build.neck_y - stoop)
    arms, legs = [], []
    for index, side in enumerate((-1, 1)):
        straight = carrying and side == pose.carrying
        shoulder = neck + complex(side * (build.shoulder - 0.01), -0.054)
        spread = pose.spread[index] * (0.6 if straight else 1)
        elbow = shoulder + 0.5 * build.arm * _down(side * spread)
        bend = 4 if straight else pose.elbows[index]
        hand = elbow + 0.46 * build.arm * _down(side * (spread - bend))
        arms.append(Limb(shoulder, elbow, hand))
        toward = side * pose.stride
        root = hip + side * 0.5 * build.hip
        knee = complex(side * (0.5 * build.hip + 0.012), build.knee_y + 0.01 * max(-toward, 0))
        ankle = complex(knee.real - side * 0.012 * pose.knees, 0.05 + 0.055 * max(-toward, 0))
        legs.append(Limb(root, knee, ankle, toward))
    head = neck + complex(0.008 * pose.head_turn, 0.98 * build.head.imag + 0.022)
    return Skeleton(build, 0, head, neck, (hip + neck) / 2, hip, tuple(arms), tuple(legs))


def _from_the_side(build: Build, pose: Pose, *, old: bool, carrying: bool) -> Skeleton:
    facing = pose.facing
    lean = pose.lean + (15 if old else 0)
    stride = pose.stride * (0.6 if old else 1)
    strides = [_stride(build, pose, step) for step in (-stride, stride)]
    # The lower foot is on the ground.
    hip = complex(0, 0.05 - min(to_ankle.imag for _, to_ankle in strides))
    left, right = (Limb(hip, hip + to_knee, hip + to_ankle) for to_knee, to_ankle in strides)
    neck = hip + (build.neck_y - build.hip_y) * _up(facing * lean)
    shoulder = neck + 0.045 * _down(facing * -20)
    arms = []
    for index, step in enumerate((-stride, stride)):
        straight = carrying and index == 1
        swing = 0 if straight else -30 * step * pose.swing
        bend = 6 if straight else 12 + pose.elbows[index]
        elbow = shoulder + 0.5 * build.arm * _down(facing * swing)
        hand = elbow + 0.46 * build.arm * _down(facing * (swing + bend))
        arms.append(Limb(shoulder, elbow, hand))
    forward = 0.042 if old else 0.012
    head = neck + complex(facing * forward, 0.98 * build.head.imag + 0.018 - 0.3 * forward)
    return Skeleton(build, facing, head, neck, (hip + neck) / 2, hip, tuple(arms), (left, right))


def _stride(build: Build, pose: Pose, step: float) -> tuple[complex, complex]:
    """Vectors from the hip to the knee and ankle of a leg, which is ahead if `step` is positive."""
    angle = 26 * step
    flex = 6 + 12 * pose.knees + 0.9 * max(-angle, 0)
    to_knee = (build.hip_y - build.knee_y) * _down(pose.facing * angle)
    return to_knee, to_knee + (build.knee_y - 0.05) * _down(pose.facing * (angle - flex))


def _down(degrees: float) -> complex:
    """The unit vector that hangs down, swung to the right by an angle."""
    return cmath.rect(1, math.radians(degrees - 90))


def _up(degrees: float) -> complex:
    """The unit vector that points up, tilted to the right by an angle."""
    return cmath.rect(1, math.radians(90 - degrees))


@dataclasses.dataclass(frozen=True)
class Drawing(Painter):
    """One person on a canvas: what the functions that draw its parts need."""

    canvas: Canvas
    frame: Frame
    description: Mapping[str, Any]  # of every group
    look: Look
    pose: Pose
    body: Skeleton

    @property
    def view(self) -> str:
        return self.description["view"]

    def ellipse(
        self, center: complex, radii: complex, color: Color, *, turn: complex = 1, **paint: float
    ) -> None:
        shape = self.canvas.ellipse(self.frame, center, radii, turn)
        self.canvas.paint(shape, color, **paint)
