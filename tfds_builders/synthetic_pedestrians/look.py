"""What an identity keeps from picture to picture: skin, hair, and the shades of its things."""

import dataclasses

import numpy as np

from tfds_builders.synthetic_pedestrians.canvas import Color

# Each named color lies between two shades.
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
    """The traits of one identity as numbers from 0 to 1, drawn apart from its attributes.

    That way two descriptions of one identity differ in what is described and in nothing else.
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
        """What patterns are drawn in on cloth of that color."""
        return _pick(_PALE if cloth in _DARK_CLOTH else _DARK, self.contrast)

    def bag_color(self, *cloths: str) -> Color:
        """A bag of another color than the clothes that it hangs before."""
        return _pick(tuple(color for color in _BAG if color not in cloths), self.bag)

    def hat_color(self) -> Color:
        return _pick(_HAT, self.hat)

    def shoe_color(self) -> Color:
        return _pick(_SHOES, self.shoes)

    def boot_color(self, lower: str) -> Color:
        """Boots of another color than the trousers that are tucked into them."""
        return _pick(_BOOTS.get(lower, _ANY_BOOTS), self.shoes)


def _pick(colors: tuple[str, ...], place: float) -> Color:
    """One of the colors and a shade of it, both by where `place` falls between 0 and 1."""
    index, rest = divmod(place * len(colors), 1)
    return shade(colors[int(index)], rest)
