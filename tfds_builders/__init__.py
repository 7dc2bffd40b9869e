"""TFDS builders of the pedestrian datasets, and the commands that prepare and describe them."""

# For words that several datasets' wordings share; a wording ignores entries for words it lacks.
SYNONYMS = {
    "a man": ("a guy", "a male person"),
    "a woman": ("a lady", "a female person"),
    "a person": ("somebody", "an individual"),
    "wears": ("is dressed in", "has on"),
    "carries": ("holds", "is carrying"),
    "a top": ("an upper garment",),
    "bottoms": ("lower garments",),
    "a hat": ("a cap",),
    "a backpack": ("a rucksack",),
    "a handbag": ("a purse",),
    "a muffler": ("a scarf",),
    "glasses": ("spectacles",),
    "elderly": ("aged",),
    "striped": ("stripy",),
    "long-sleeved": ("long-sleeve",),
    "short-sleeved": ("short-sleeve",),
}
