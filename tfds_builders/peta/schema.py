"""PETA (Deng et al.): the 105 bits of `PETA.mat` in the file's order; the usual 35 come first."""

import dataclasses

from aima_jax.attributes import AttributeSchema, Group

# The file's name for each column -> our name for its bit.
COLUMNS: dict[str, str] = {
    "personalLess30": "age=16-30",
    "personalLess45": "age=31-45",
    "personalLess60": "age=46-60",
    "personalLarger60": "age=over_60",
    "carryingBackpack": "backpack",
    "carryingOther": "carrying_other",
    "lowerBodyCasual": "lower_style=casual",
    "upperBodyCasual": "upper_style=casual",
    "lowerBodyFormal": "lower_style=formal",
    "upperBodyFormal": "upper_style=formal",
    "accessoryHat": "hat",
    "upperBodyJacket": "upper_type=jacket",
    "lowerBodyJeans": "lower_type=jeans",
    "footwearLeatherShoes": "footwear=leather_shoes",
    "upperBodyLogo": "upper_pattern=logo",
    "hairLong": "hair=long",
    "personalMale": "gender=male",
    "carryingMessengerBag": "messenger_bag",
    "accessoryMuffler": "muffler",
    "accessoryNothing": "no_accessory",
    "carryingNothing": "carrying_nothing",
    "upperBodyPlaid": "upper_pattern=plaid",
    "carryingPlasticBags": "plastic_bags",
    "footwearSandals": "footwear=sandals",
    "footwearShoes": "footwear=shoes",
    "lowerBodyShorts": "lower_type=shorts",
    "upperBodyShortSleeve": "sleeve=short",
    "lowerBodyShortSkirt": "lower_type=short_skirt",
    "footwearSneaker": "footwear=sneakers",
    "upperBodyThinStripes": "upper_pattern=thin_stripes",
    "accessorySunglasses": "sunglasses",
    "lowerBodyTrousers": "lower_type=trousers",
    "upperBodyTshirt": "upper_type=t_shirt",
    "upperBodyOther": "upper_type=other",
    "upperBodyVNeck": "v_neck",
    "upperBodyBlack": "upper_color=black",
    "upperBodyBlue": "upper_color=blue",
    "upperBodyBrown": "upper_color=brown",
    "upperBodyGreen": "upper_color=green",
    "upperBodyGrey": "upper_color=gray",
    "upperBodyOrange": "upper_color=orange",
    "upperBodyPink": "upper_color=pink",
    "upperBodyPurple": "upper_color=purple",
    "upperBodyRed": "upper_color=red",
    "upperBodyWhite": "upper_color=white",
    "upperBodyYellow": "upper_color=yellow",
    "lowerBodyBlack": "lower_color=black",
    "lowerBodyBlue": "lower_color=blue",
    "lowerBodyBrown": "lower_color=brown",
    "lowerBodyGreen": "lower_color=green",
    "lowerBodyGrey": "lower_color=gray",
    "lowerBodyOrange": "lower_color=orange",
    "lowerBodyPink": "lower_color=pink",
    "lowerBodyPurple": "lower_color=purple",
    "lowerBodyRed": "lower_color=red",
    "lowerBodyWhite": "lower_color=white",
    "lowerBodyYellow": "lower_color=yellow",
    "hairBlack": "hair_color=black",
    "hairBlue": "hair_color=blue",
    "hairBrown": "hair_color=brown",
    "hairGreen": "hair_color=green",
    "hairGrey": "hair_color=gray",
    "hairOrange": "hair_color=orange",
    "hairPink": "hair_color=pink",
    "hairPurple": "hair_color=purple",
    "hairRed": "hair_color=red",
    "hairWhite": "hair_color=white",
    "hairYellow": "hair_color=yellow",
    "footwearBlack": "footwear_color=black",
    "footwearBlue": "footwear_color=blue",
    "footwearBrown": "footwear_color=brown",
    "footwearGreen": "footwear_color=green",
    "footwearGrey": "footwear_color=gray",
    "footwearOrange": "footwear_color=orange",
    "footwearPink": "footwear_color=pink",
    "footwearPurple": "footwear_color=purple",
    "footwearRed": "footwear_color=red",
    "footwearWhite": "footwear_color=white",
    "footwearYellow": "footwear_color=yellow",
    "accessoryHeadphone": "headphones",
    "personalLess15": "age=under_16",
    "carryingBabyBuggy": "baby_buggy",
    "hairBald": "hair=bald",
    "footwearBoots": "footwear=boots",
    "lowerBodyCapri": "lower_type=capri",
    "carryingShoppingTro": "shopping_trolley",
    "carryingUmbrella": "umbrella",
    "personalFemale": "gender=female",
    "carryingFolder": "folder",
    "accessoryHairBand": "hair_band",
    "lowerBodyHotPants": "lower_type=hot_pants",
    "accessoryKerchief": "kerchief",
    "lowerBodyLongSkirt": "lower_type=long_skirt",
    "upperBodyLongSleeve": "sleeve=long",
    "lowerBodyPlaid": "lower_pattern=plaid",
    "lowerBodyThinStripes": "lower_pattern=thin_stripes",
    "carryingLuggageCase": "luggage_case",
    "upperBodyNoSleeve": "sleeve=sleeveless",
    "hairShort": "hair=short",
    "footwearStocking": "footwear=stockings",
    "upperBodySuit": "upper_type=suit",
    "carryingSuitcase": "suitcase",
    "lowerBodySuits": "lower_type=suit",
    "upperBodySweater": "upper_type=sweater",
    "upperBodyThickStripes": "upper_pattern=thick_stripes",
}
FILE_NAMES: tuple[str, ...] = tuple(COLUMNS)

_COLORS = (
    "black",
    "blue",
    "brown",
    "green",
    "gray",
    "orange",
    "pink",
    "purple",
    "red",
    "white",
    "yellow",
)
_LOWER_TYPES = (
    "jeans",
    "trousers",
    "suit",
    "shorts",
    "capri",
    "short_skirt",
    "long_skirt",
    "hot_pants",
)
_FOOTWEAR = ("leather_shoes", "shoes", "sneakers", "sandals", "boots", "stockings")

# The labels give some people two ages, sleeves or shoes, and others none, so hardly any group is
# exclusive. Gender is: only one image has none.
SCHEMA = AttributeSchema(
    "peta",
    (
        Group("gender", "exclusive", ("male", "female"), absent="unknown"),
        Group("age", "independent", ("under_16", "16-30", "31-45", "46-60", "over_60")),
        Group("hair", "independent", ("long", "short", "bald")),
        Group("hair_color", "independent", _COLORS),
        Group("upper_style", "independent", ("casual", "formal")),
        Group("upper_type", "independent", ("jacket", "suit", "sweater", "t_shirt", "other")),
        Group("upper_color", "independent", _COLORS),
        Group("upper_pattern", "independent", ("logo", "plaid", "thin_stripes", "thick_stripes")),
        Group("sleeve", "independent", ("long", "short", "sleeveless")),
        Group("v_neck", "flag"),
        Group("lower_style", "independent", ("casual", "formal")),
        Group("lower_type", "independent", _LOWER_TYPES),
        Group("lower_color", "independent", _COLORS),
        Group("lower_pattern", "independent", ("plaid", "thin_stripes")),
        Group("footwear", "independent", _FOOTWEAR),
        Group("footwear_color", "independent", _COLORS),
        Group("hat", "flag"),
        Group("muffler", "flag"),
        Group("sunglasses", "flag"),
        Group("headphones", "flag"),
        Group("hair_band", "flag"),
        Group("kerchief", "flag"),
        Group("no_accessory", "flag"),
        Group("backpack", "flag"),
        Group("messenger_bag", "flag"),
        Group("plastic_bags", "flag"),
        Group("suitcase", "flag"),
        Group("luggage_case", "flag"),
        Group("shopping_trolley", "flag"),
        Group("baby_buggy", "flag"),
        Group("umbrella", "flag"),
        Group("folder", "flag"),
        Group("carrying_other", "flag"),
        Group("carrying_nothing", "flag"),
    ),
    names=tuple(COLUMNS.values()),
    absences=("no_accessory", "carrying_nothing"),
)


def _first_35() -> AttributeSchema:
    """Return the schema of the usual 35 bits: every group with its remaining values."""
    names = SCHEMA.names[:35]
    # Of gender only `personalMale` is among them.
    groups = [Group("gender", "exclusive", ("male",), absent="female")]
    for group in SCHEMA.groups[1:]:
        if group.kind != "flag":
            values = tuple(v for v in group.values if f"{group.name}={v}" in names)
            if values:
                groups.append(dataclasses.replace(group, values=values))
        elif group.name in names:
            groups.append(group)
    absences = tuple(name for name in SCHEMA.absences if name in names)
    return AttributeSchema("peta35", tuple(groups), names, absences)


SCHEMA_35 = _first_35()
