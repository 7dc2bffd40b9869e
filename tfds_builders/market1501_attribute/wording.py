"""Market-1501 Attribute in words."""

from aima_jax.text import Clause, NounPhrase, Wording, things
from tfds_builders import SYNONYMS

WORDING = Wording(
    words={
        "age=teenager": "teenage",
        "gender=male": "a man",
        "gender=female": "a woman",
        "sleeve=long": "long-sleeved",
        "sleeve=short": "short-sleeved",
        "lower_type=dress": "a dress",
        "hat": "a hat",
        "backpack": "a backpack",
        "bag": "a bag",
        "handbag": "a handbag",
    },
    subject=NounPhrase("a person", head="gender", adjectives=("age",)),
    details=(Clause("with", (NounPhrase("hair", adjectives=("hair",)),)),),
    predicates=(
        Clause(
            "wears",
            (
                NounPhrase("a top", adjectives=("sleeve", "upper_color")),
                NounPhrase(
                    "bottoms", head="lower_type", adjectives=("lower_length", "lower_color")
                ),
                *things("hat"),
            ),
        ),
        Clause("carries", things("backpack", "bag", "handbag")),
    ),
    absences={
        "hat": "no hat",
        "backpack": "no backpack",
        "bag": "no bag",
        "handbag": "no handbag",
        "upper_color": "no dominant top color",
        "lower_color": "no dominant bottom color",
    },
    synonyms=SYNONYMS,
)
