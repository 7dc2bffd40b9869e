"""UPAR (UPAR Challenge 2027, task 2): the 40 bits of its files, in their order."""

from aima_jax.attributes import AttributeSchema, Group

COLORS = ("black", "blue", "brown", "green", "gray", "orange")
COLORS += ("pink", "purple", "red", "white", "yellow", "other")
_SPELLED = {color: color.title() for color in COLORS} | {"gray": "Grey"}

# The files' name for each column -> our name for its bit.
COLUMNS: dict[str, str] = {
    "Age-Young": "age=young",
    "Age-Adult": "age=adult",
    "Age-Old": "age=old",
    "Gender-Female": "gender=female",
    "Hair-Length-Short": "hair=short",
    "Hair-Length-Long": "hair=long",
    "Hair-Length-Bald": "hair=bald",
    "UpperBody-Length-Short": "sleeve=short",
    **{f"UpperBody-Color-{name}": f"upper_color={color}" for color, name in _SPELLED.items()},
    "LowerBody-Length-Short": "lower_length=short",
    **{f"LowerBody-Color-{name}": f"lower_color={color}" for color, name in _SPELLED.items()},
    "LowerBody-Type-Trousers&Shorts": "lower_type=trousers_or_shorts",
    "LowerBody-Type-Skirt&Dress": "lower_type=skirt_or_dress",
    "Accessory-Backpack": "backpack",
    "Accessory-Bag": "bag",
    "Accessory-Glasses-Normal": "glasses",
    "Accessory-Glasses-Sun": "sunglasses",
    "Accessory-Hat": "hat",
}
FILE_NAMES: tuple[str, ...] = tuple(COLUMNS)

# The labels give some people two colors or types, and others no age or hair: in groups with several
# bits, any number may be set. A group with one bit has a word for its absence.
SCHEMA = AttributeSchema(
    "upar",
    (
        Group("age", "independent", ("young", "adult", "old")),
        Group("gender", "exclusive", ("female",), absent="male"),
        Group("hair", "independent", ("short", "long", "bald")),
        Group("sleeve", "exclusive", ("short",), absent="long"),
        Group("upper_color", "independent", COLORS),
        Group("lower_length", "exclusive", ("short",), absent="long"),
        Group("lower_color", "independent", COLORS),
        Group("lower_type", "independent", ("trousers_or_shorts", "skirt_or_dress")),
        Group("backpack", "flag"),
        Group("bag", "flag"),
        Group("glasses", "flag"),
        Group("sunglasses", "flag"),
        Group("hat", "flag"),
    ),
    names=tuple(COLUMNS.values()),
)
