"""PA-100K (Liu et al., HydraPlus-Net): the 26 bits of `annotation.mat`, in the file's order."""

from aima_jax.attributes import AttributeSchema, Group

# The file's name for each column -> our name for its bit; a man is `Female` = 0.
COLUMNS: dict[str, str] = {
    "Female": "gender=female",
    "AgeOver60": "age=over_60",
    "Age18-60": "age=18-60",
    "AgeLess18": "age=under_18",
    "Front": "view=front",
    "Side": "view=side",
    "Back": "view=back",
    "Hat": "hat",
    "Glasses": "glasses",
    "HandBag": "handbag",
    "ShoulderBag": "shoulder_bag",
    "Backpack": "backpack",
    "HoldObjectsInFront": "object_in_front",
    "ShortSleeve": "sleeve=short",
    "LongSleeve": "sleeve=long",
    "UpperStride": "upper_pattern=stripes",
    "UpperLogo": "upper_pattern=logo",
    "UpperPlaid": "upper_pattern=plaid",
    "UpperSplice": "upper_pattern=splice",
    "LowerStripe": "lower_pattern=stripes",
    "LowerPattern": "lower_pattern=print",
    "LongCoat": "lower_type=long_coat",
    "Trousers": "lower_type=trousers",
    "Shorts": "lower_type=shorts",
    "Skirt&Dress": "lower_type=skirt",
    "boots": "boots",
}
FILE_NAMES: tuple[str, ...] = tuple(COLUMNS)

SCHEMA = AttributeSchema(
    "pa100k",
    (
        Group("gender", "exclusive", ("female",), absent="male"),
        Group("age", "exclusive", ("over_60", "18-60", "under_18")),
        Group("view", "exclusive", ("front", "side", "back")),
        Group("hat", "flag"),
        Group("glasses", "flag"),
        Group("handbag", "flag"),
        Group("shoulder_bag", "flag"),
        Group("backpack", "flag"),
        Group("object_in_front", "flag"),
        Group("sleeve", "exclusive", ("short", "long")),
        Group("upper_pattern", "exclusive", ("stripes", "logo", "plaid", "splice"), absent="none"),
        Group("lower_pattern", "exclusive", ("stripes", "print"), absent="none"),
        # None on three images, a long coat over another on 3,335.
        Group("lower_type", "independent", ("long_coat", "trousers", "shorts", "skirt")),
        Group("boots", "flag"),
    ),
    names=tuple(COLUMNS.values()),
)
