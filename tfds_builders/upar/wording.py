"""UPAR in words, short enough that even a person with all 40 attributes fits in 77 tokens."""

from aima_jax.text import Clause, NounPhrase, Wording, things
from tfds_builders import SYNONYMS
from tfds_builders.upar.schema import COLORS


def _colors(group: str) -> tuple[str, ...]:
    """Colors one by one: "a red white top", which takes half the tokens of a list with commas."""
    return tuple(f"{group}={color}" for color in COLORS if color != "other")


WORDING = Wording(
    words={
        "gender=female": "a woman",
        "gender=male": "a man",
        "sleeve=short": "short-sleeved",
        "sleeve=long": "long-sleeved",
        "lower_length=long": "long",
        "upper_color=other": "other colors",
        "lower_color=other": "other colors",
        "lower_type=trousers_or_shorts": "pants",
        "lower_type=skirt_or_dress": "a skirt",
        "backpack": "a backpack",
        "bag": "a bag",
        "glasses": "glasses",
        "sunglasses": "sunglasses",
        "hat": "a hat",
    },
    subject=NounPhrase("a person", head="gender", adjectives=("hair=bald", "age")),
    details=(Clause("with", (NounPhrase("hair", adjectives=("hair",)),)),),
    predicates=(
        Clause(
            "wears",
            (
                NounPhrase(
                    "a top",
                    adjectives=("sleeve", *_colors("upper_color")),
                    features=("upper_color=other",),
                ),
                NounPhrase(
                    "bottoms",
                    head="lower_type",
                    adjectives=("lower_length", *_colors("lower_color")),
                    features=("lower_color=other",),
                ),
                *things("hat", "glasses", "sunglasses"),
            ),
        ),
        Clause("carries", things("backpack", "bag")),
    ),
    absences={
        "hat": "no hat",
        "glasses": "no glasses",
        "sunglasses": "no sunglasses",
        "backpack": "no backpack",
        "bag": "no bag",
    },
    synonyms=SYNONYMS,
)
