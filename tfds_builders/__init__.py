"""TFDS builders of the pedestrian datasets, and what prepares and describes them."""

# Of words that the datasets' wordings have in common; a wording ignores those of words it lacks.
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
