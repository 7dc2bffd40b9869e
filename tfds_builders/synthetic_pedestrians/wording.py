"""The rendered pedestrians in words."""

from aima_jax.text import Clause, NounPhrase, Wording, things
from tfds_builders import SYNONYMS

WORDING = Wording(
    words={
        "gender=male": "a man",
        "gender=female": "a woman",
        "age=child": "young",
        "age=old": "elderly",
        "hat": "a hat",
        "glasses": "glasses",
        "sleeve=short": "short-sleeved",
        "sleeve=long": "long-sleeved",
        "upper_pattern=stripes": "striped",
        "upper_pattern=splice": "color-block",
        "lower_type=skirt": "a skirt",
        "bag=backpack": "a backpack",
        "bag=shoulder_bag": "a shoulder bag",
        "bag=handbag": "a handbag",
        "boots": "boots",
    },
    subject=NounPhrase("a person", head="gender", adjectives=("age",)),
    details=(
        Clause("with", (NounPhrase("hair", adjectives=("hair",)),)),
        Clause("in", (NounPhrase("view", adjectives=("view",)),)),
    ),
    predicates=(
        Clause(
            "wears",
            (
                NounPhrase("a top", adjectives=("sleeve", "upper_color", "upper_pattern")),
                NounPhrase(
                    "bottoms", head="lower_type", adjectives=("lower_length", "lower_color")
                ),
                *things("boots", "hat", "glasses"),
            ),
        ),
        Clause("carries", things("bag")),
    ),
    absences={
        "hat": "no hat",
        "glasses": "no glasses",
        "upper_pattern": "no pattern on the top",
        "bag": "no bag",
        "boots": "no boots",
    },
    synonyms=SYNONYMS,
)
