"""The meaning of other schemas' bits in UPAR's vocabulary. [ours]

For each schema and bit of UPAR: the bits that each imply it, and the bits that each imply its
absence; either may be None, for "if none of the other is set". If both or neither are implied,
the bit is unknown. A bit that is not in a table cannot be inferred from that dataset's labels.
Labels mapped by these tables are not UPAR's.
"""

from collections.abc import Iterator

from tfds_builders.market1501_attribute.schema import SCHEMA as MARKET1501
from tfds_builders.pa100k.schema import SCHEMA as PA100K
from tfds_builders.peta.schema import SCHEMA as PETA
from tfds_builders.peta.schema import SCHEMA_35 as PETA_35
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as SYNTHETIC
from tfds_builders.upar.schema import COLORS
from tfds_builders.upar.schema import SCHEMA as UPAR

_Meaning = tuple[tuple[str, ...] | None, tuple[str, ...] | None]

VOCABULARY = UPAR.names
SCHEMAS = {schema.name: schema for schema in (UPAR, MARKET1501, PA100K, PETA, PETA_35, SYNTHETIC)}


def _one_of(group: str, **values: tuple[str, ...]) -> dict[str, _Meaning]:
    """Mutually exclusive values: each implies the absence of the others."""
    return {
        f"{group}={value}": (
            bits,
            tuple(bit for other in values for bit in values[other] if other != value),
        )
        for value, bits in values.items()
    }


def _flags(**bits: tuple[str, ...]) -> dict[str, _Meaning]:
    return {name: (own, None) for name, own in bits.items()}


def _colors(group: str, known: tuple[str, ...]) -> dict[str, _Meaning]:
    """Colors with the same name in both; UPAR's "other" has no counterpart in any schema."""
    same = (f"{group}={color}" for color in COLORS if f"{group}={color}" in known)
    return {name: ((name,), None) for name in same}


def _restricted(
    table: dict[str, _Meaning], names: tuple[str, ...]
) -> Iterator[tuple[str, _Meaning]]:
    """Restrict a table to some labelled bits: what they can affirm and deny."""
    for bit, meaning in table.items():
        yes, no = (
            None if one is None else tuple(name for name in one if name in names) for one in meaning
        )
        if () not in (yes, no):
            yield bit, (yes, no)


MEANINGS: dict[str, dict[str, _Meaning]] = {
    "upar": {name: ((name,), None) for name in UPAR.names},
    "market1501": {
        # A teenager is not old; young or adult is not known.
        "age=young": (("age=young",), ("age=adult", "age=old")),
        "age=adult": (("age=adult",), ("age=young", "age=old")),
        "age=old": (("age=old",), ("age=young", "age=teenager", "age=adult")),
        "gender=female": (("gender=female",), ("gender=male",)),
        **_one_of("hair", short=("hair=short",), long=("hair=long",)),
        "sleeve=short": (("sleeve=short",), ("sleeve=long",)),
        **_colors("upper_color", MARKET1501.names),
        "lower_length=short": (("lower_length=short",), ("lower_length=long",)),
        **_colors("lower_color", MARKET1501.names),
        **_one_of(
            "lower_type",
            trousers_or_shorts=("lower_type=pants",),
            skirt_or_dress=("lower_type=dress",),
        ),
        **_flags(backpack=("backpack",), bag=("bag", "handbag"), hat=("hat",)),
    },
    "pa100k": {
        **_one_of("age", young=("age=under_18",), adult=("age=18-60",), old=("age=over_60",)),
        "gender=female": (("gender=female",), None),
        "sleeve=short": (("sleeve=short",), ("sleeve=long",)),
        "lower_length=short": (("lower_type=shorts",), ("lower_type=trousers",)),
        **_one_of(
            "lower_type",
            trousers_or_shorts=("lower_type=trousers", "lower_type=shorts"),
            skirt_or_dress=("lower_type=skirt",),
        ),
        **_flags(backpack=("backpack",), bag=("handbag", "shoulder_bag"), hat=("hat",)),
    },
    "peta": {
        **_one_of(
            "age",
            young=("age=under_16",),
            adult=("age=16-30", "age=31-45", "age=46-60"),
            old=("age=over_60",),
        ),
        "gender=female": (("gender=female",), ("gender=male",)),
        **_one_of("hair", short=("hair=short",), long=("hair=long",), bald=("hair=bald",)),
        "sleeve=short": (("sleeve=short", "sleeve=sleeveless"), ("sleeve=long",)),
        **_colors("upper_color", PETA.names),
        "lower_length=short": (
            ("lower_type=shorts", "lower_type=hot_pants", "lower_type=short_skirt"),
            (
                "lower_type=trousers",
                "lower_type=jeans",
                "lower_type=suit",
                "lower_type=capri",
                "lower_type=long_skirt",
            ),
        ),
        **_colors("lower_color", PETA.names),
        **_one_of(
            "lower_type",
            trousers_or_shorts=(
                "lower_type=trousers",
                "lower_type=jeans",
                "lower_type=suit",
                "lower_type=capri",
                "lower_type=shorts",
                "lower_type=hot_pants",
            ),
            skirt_or_dress=("lower_type=short_skirt", "lower_type=long_skirt"),
        ),
        # Whether UPAR counts suitcases and the like as bags is not known.
        **_flags(
            backpack=("backpack",),
            bag=("messenger_bag", "plastic_bags"),
            sunglasses=("sunglasses",),
            hat=("hat",),
        ),
    },
    "synthetic": {
        **_one_of("age", young=("age=child",), adult=("age=adult",), old=("age=old",)),
        "gender=female": (("gender=female",), ("gender=male",)),
        **_one_of("hair", short=("hair=short",), long=("hair=long",)),
        "sleeve=short": (("sleeve=short",), ("sleeve=long",)),
        **_colors("upper_color", SYNTHETIC.names),
        "lower_length=short": (("lower_length=short",), ("lower_length=long",)),
        **_colors("lower_color", SYNTHETIC.names),
        **_one_of(
            "lower_type",
            trousers_or_shorts=("lower_type=pants",),
            skirt_or_dress=("lower_type=skirt",),
        ),
        **_flags(
            backpack=("bag=backpack",),
            bag=("bag=shoulder_bag", "bag=handbag"),
            glasses=("glasses",),
            hat=("hat",),
        ),
    },
}
# Among the usual 35 only the male bit gives gender: one image in 19,000 has neither.
MEANINGS["peta35"] = {
    **dict(_restricted(MEANINGS["peta"], PETA_35.names)),
    "gender=female": (None, ("gender=male",)),
}


def unknown(name: str) -> tuple[str, ...]:
    """Return the bits of UPAR that a schema's labels say nothing about."""
    return tuple(bit for bit in VOCABULARY if bit not in MEANINGS[name])


def without_counterpart(name: str) -> tuple[str, ...]:
    """Return the bits of a schema that say nothing in UPAR's vocabulary."""
    told = {bit for own in MEANINGS[name].values() for bits in own for bit in bits or ()}
    return tuple(bit for bit in SCHEMAS[name].names if bit not in told)
