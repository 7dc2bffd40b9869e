"""Market-1501 Attribute (Lin et al.): 35 bits, and how `market_attribute.mat` codes them."""

from aima_jax.attributes import AttributeSchema, Group

_UPPER_COLORS = ("black", "white", "red", "purple", "yellow", "gray", "blue", "green")
_LOWER_COLORS = ("black", "white", "pink", "purple", "yellow", "gray", "blue", "green", "brown")

SCHEMA = AttributeSchema(
    "market1501",
    (
        Group("age", "exclusive", ("young", "teenager", "adult", "old")),
        Group("gender", "exclusive", ("male", "female")),
        Group("hair", "exclusive", ("short", "long")),
        Group("sleeve", "exclusive", ("long", "short")),
        Group("lower_length", "exclusive", ("long", "short")),
        Group("lower_type", "exclusive", ("dress", "pants")),
        Group("hat", "flag"),
        Group("backpack", "flag"),
        Group("bag", "flag"),
        Group("handbag", "flag"),
        Group("upper_color", "exclusive", _UPPER_COLORS, absent="none"),
        Group("lower_color", "exclusive", _LOWER_COLORS, absent="none"),
    ),
)

# Field of the label file -> code -> name of the bit that the code sets, or None.
# The file's train and test halves order their fields differently: look them up by name.
FIELDS: dict[str, dict[int, str | None]] = {
    "age": {1: "age=young", 2: "age=teenager", 3: "age=adult", 4: "age=old"},
    "gender": {1: "gender=male", 2: "gender=female"},
    "hair": {1: "hair=short", 2: "hair=long"},
    "up": {1: "sleeve=long", 2: "sleeve=short"},
    "down": {1: "lower_length=long", 2: "lower_length=short"},
    "clothes": {1: "lower_type=dress", 2: "lower_type=pants"},
    "hat": {1: None, 2: "hat"},
    "backpack": {1: None, 2: "backpack"},
    "bag": {1: None, 2: "bag"},
    "handbag": {1: None, 2: "handbag"},
    **{f"up{color}": {1: None, 2: f"upper_color={color}"} for color in _UPPER_COLORS},
    **{f"down{color}": {1: None, 2: f"lower_color={color}"} for color in _LOWER_COLORS},
}
