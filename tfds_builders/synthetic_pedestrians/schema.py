"""Rendered pedestrians: 42 bits, in the manner of the three real datasets."""

from aima_jax.attributes import AttributeSchema, Group

SCHEMA = AttributeSchema(
    "synthetic",
    (
        Group("gender", "exclusive", ("male", "female")),
        Group("age", "exclusive", ("child", "adult", "old")),
        Group("hair", "exclusive", ("short", "long")),
        Group("hat", "flag"),
        # What cannot be seen has no bit: nobody who is seen from behind wears glasses.
        Group("glasses", "flag"),
        Group("view", "exclusive", ("front", "side", "back")),
        Group("sleeve", "exclusive", ("short", "long")),
        Group(
            "upper_color",
            "exclusive",
            ("black", "white", "gray", "red", "yellow", "green", "blue", "purple", "pink"),
        ),
        Group("upper_pattern", "exclusive", ("stripes", "logo", "plaid", "splice"), absent="none"),
        Group("lower_type", "exclusive", ("pants", "skirt")),
        Group("lower_length", "exclusive", ("long", "short")),
        Group(
            "lower_color",
            "exclusive",
            ("black", "white", "gray", "red", "green", "blue", "brown"),
        ),
        Group("bag", "exclusive", ("backpack", "shoulder_bag", "handbag"), absent="none"),
        Group("boots", "flag"),
    ),
)
