"""Rendered pedestrians: 42 bits like those of the three real datasets, and their frequencies."""

import numpy as np

from aima_jax.attributes import AttributeSchema, Description, Group

VIEWS = ("front", "side", "back")

# Frequency of each value, women's first where they differ from men's.
_UPPER_COLORS = {
    "black": (0.16, 0.22),
    "white": (0.17, 0.16),
    "gray": (0.09, 0.15),
    "red": (0.13, 0.08),
    "yellow": (0.09, 0.06),
    "green": (0.07, 0.1),
    "blue": (0.1, 0.18),
    "purple": (0.09, 0.03),
    "pink": (0.1, 0.02),
}
_LOWER_COLORS = {
    "black": (0.3, 0.3),
    "white": (0.12, 0.06),
    "gray": (0.11, 0.18),
    "red": (0.11, 0.04),
    "green": (0.06, 0.09),
    "blue": (0.2, 0.22),
    "brown": (0.1, 0.11),
}
_PATTERNS = {"none": 0.44, "stripes": 0.15, "logo": 0.15, "plaid": 0.13, "splice": 0.13}
_BAGS = {
    "none": (0.32, 0.46),
    "backpack": (0.18, 0.3),
    "shoulder_bag": (0.26, 0.17),
    "handbag": (0.24, 0.07),
}

SCHEMA = AttributeSchema(
    "synthetic",
    (
        Group("gender", "exclusive", ("male", "female")),
        Group("age", "exclusive", ("child", "adult", "old")),
        Group("hair", "exclusive", ("short", "long")),
        Group("hat", "flag"),
        # What cannot be seen has no bit: nobody seen from behind wears glasses.
        Group("glasses", "flag"),
        Group("view", "exclusive", VIEWS),
        Group("sleeve", "exclusive", ("short", "long")),
        Group("upper_color", "exclusive", tuple(_UPPER_COLORS)),
        Group("upper_pattern", "exclusive", ("stripes", "logo", "plaid", "splice"), absent="none"),
        Group("lower_type", "exclusive", ("pants", "skirt")),
        Group("lower_length", "exclusive", ("long", "short")),
        Group("lower_color", "exclusive", tuple(_LOWER_COLORS)),
        Group("bag", "exclusive", ("backpack", "shoulder_bag", "handbag"), absent="none"),
        Group("boots", "flag"),
    ),
)


def draw_description(rng: np.random.Generator) -> Description:
    """Draw a description without a view: dress depends on gender, age and season."""
    cold = rng.random()  # 0 in midsummer, 1 in midwinter
    woman = rng.random() < 0.5
    age = _choose(rng, {"child": 0.16, "adult": 0.64, "old": 0.2})
    skirt = woman and rng.random() < 0.45
    short = rng.random() < (0.55 if skirt else (0.65 if age == "child" else 0.5) * (1 - cold))
    long_hair = {"child": 0.6, "adult": 0.68, "old": 0.3}[age] if woman else 0.07
    patterns = _PATTERNS | ({"logo": 0.3} if age == "child" else {})
    return {
        "gender": "female" if woman else "male",
        "age": age,
        "hair": "long" if rng.random() < long_hair else "short",
        "hat": bool(rng.random() < 0.14 + 0.14 * cold + (0.06 if age != "adult" else 0)),
        "glasses": bool(rng.random() < {"child": 0.1, "adult": 0.25, "old": 0.4}[age]),
        "sleeve": "long" if rng.random() < 0.08 + 0.84 * cold else "short",
        "upper_color": _choose(rng, _UPPER_COLORS, woman),
        "upper_pattern": _choose(rng, patterns),
        "lower_type": "skirt" if skirt else "pants",
        "lower_length": "short" if short else "long",
        "lower_color": _choose(rng, _LOWER_COLORS, woman),
        "bag": "backpack" if age == "child" and rng.random() < 0.4 else _choose(rng, _BAGS, woman),
        "boots": bool(rng.random() < (0.5 if woman else 0.3) * cold),
    }


def seen_from(person: Description, view: str) -> Description:
    """The description of a person seen from one side: what cannot be seen is absent."""
    hidden = {}
    if view == "back":
        hidden["glasses"] = False
        if person["bag"] == "backpack" and person["upper_pattern"] == "logo":
            hidden["upper_pattern"] = "none"
    return person | {"view": view} | hidden


def _choose(rng: np.random.Generator, weights: dict, woman: bool | None = None) -> str:
    if woman is not None:
        weights = {value: pair[0 if woman else 1] for value, pair in weights.items()}
    bounds = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
