"""PA-100K in words."""

from aima_jax.text import Clause, NounPhrase, Wording, things
from tfds_builders import SYNONYMS

WORDING = Wording(
    words={
        "gender=female": "a woman",
        "gender=male": "a man",
        "age=over_60": "elderly",
        "age=18-60": "adult",
        "age=under_18": "young",
        "hat": "a hat",
        "glasses": "glasses",
        "handbag": "a handbag",
        "shoulder_bag": "a shoulder bag",
        "backpack": "a backpack",
        "object_in_front": "an object in front",
        "sleeve=short": "short-sleeved",
        "sleeve=long": "long-sleeved",
        "upper_pattern=stripes": "striped",
        "upper_pattern=splice": "color-block",
        "lower_pattern=stripes": "striped",
        "lower_pattern=print": "patterned",
        "lower_type=long_coat": "a long coat",
        "lower_type=skirt": "a skirt or dress",
        "boots": "boots",
    },
    subject=NounPhrase("a person", head="gender", adjectives=("age",)),
    details=(Clause("in", (NounPhrase("view", adjectives=("view",)),)),),
    predicates=(
        Clause(
            "wears",
            (
                NounPhrase("a top", adjectives=("sleeve", "upper_pattern")),
                *things("lower_type=long_coat"),
                NounPhrase("bottoms", head="lower_type", adjectives=("lower_pattern",)),
                *things("boots", "hat", "glasses"),
            ),
        ),
        Clause("carries", things("handbag", "shoulder_bag", "backpack", "object_in_front")),
    ),
    absences={
        "hat": "no hat",
        "glasses": "no glasses",
        "handbag": "no handbag",
        "shoulder_bag": "no shoulder bag",
        "backpack": "no backpack",
        "object_in_front": "no object in front",
        "boots": "no boots",
        "upper_pattern": "no pattern on the top",
        "lower_pattern": "no pattern on the bottoms",
    },
    synonyms=SYNONYMS,
)
