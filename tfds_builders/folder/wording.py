"""A wording generated from the names of groups and values. [ours]

A name such as `upper_color` is a thing and its property: "a red top". A flag is a thing that a
person wears, carries or has; a group without a known property follows "with".
"""

import dataclasses
from collections import Counter

from aima_jax.attributes import AttributeSchema, Group
from aima_jax.text import Clause, NounPhrase, Wording

_PROPERTIES = ("color", "colour", "length", "style", "pattern", "type", "size", "shape", "material")
_THINGS = {
    "top": ("upper", "upper body", "upperbody", "top", "upper clothes", "upper clothing", "torso"),
    "bottoms": ("lower", "lower body", "lowerbody", "bottom", "lower clothes", "lower clothing"),
    "footwear": ("shoe", "shoes", "foot"),
    "view": ("orientation", "viewpoint", "direction"),
    "gender": ("sex",),
}
_SAME = {other: name for name, others in _THINGS.items() for other in others}
_WORN = ("top", "bottoms", "footwear", "headwear", "eyewear", "hat", "cap", "helmet", "hood")
_WORN += ("glasses", "sunglasses", "mask", "scarf", "muffler", "gloves", "boots", "sneakers")
_WORN += ("jacket", "coat", "vest", "shirt", "sweater", "dress", "skirt", "shorts", "jeans")
_WORN += ("tie", "belt", "apron", "uniform", "headphones", "watch", "badge", "suit", "kerchief")
_CARRIED = ("bag", "bags", "backpack", "handbag", "suitcase", "luggage", "umbrella", "purse", "box")
_CARRIED += ("phone", "trolley", "folder", "book", "bottle", "cup", "basket", "briefcase", "stick")
_CARRYING = ("carrying", "holding", "carried", "held")
_NOT_COUNTED = ("hair", "footwear", "headwear", "eyewear", "luggage", "clothing", "makeup")
_NOTHING = ("none", "no", "nothing", "absent", "unknown", "other", "n/a")
_PEOPLE = {"male": "a man", "man": "a man", "female": "a woman", "woman": "a woman"}
_PEOPLE |= {"boy": "a boy", "girl": "a girl", "child": "a child"}


@dataclasses.dataclass
class _Thing:
    """A noun phrase under construction."""

    noun: str
    lead: str
    head: str = ""
    adjectives: list[str] = dataclasses.field(default_factory=list)


def generate(schema: AttributeSchema) -> Wording:
    """Return a wording for a schema, in readable English if its names are English."""
    things: dict[str, _Thing] = {"person": _Thing("a person", "")}
    words: dict[str, str] = {}
    absences: dict[str, str] = {}
    for group in schema.groups:
        name, prop = _parts(group)
        key, form = _place(name, prop, group)
        thing = things.setdefault(key, _Thing(_with_article(key), _lead(key, group)))
        if form == "head" and not thing.head:
            thing.head = group.name
        else:
            thing.adjectives.append(group.name)
        is_head = thing.head == group.name
        bits = dict(zip(group.bits, group.values or (name,), strict=True))
        if group.absent is not None and group.absent.lower() not in _NOTHING:
            bits[f"{group.name}={group.absent}"] = group.absent
        for bit, value in bits.items():
            words[bit] = _words(value.replace("_", " "), name, is_head)
        if group.kind == "flag":
            absences[group.name] = f"no {name}"
        elif group.absent is not None and group.absent.lower() in _NOTHING:
            said = "" if key in ("person", name) else f"{key} "
            absences[group.name] = f"no {said}{prop or name}"
    for thing in things.values():
        _tell_apart(thing, schema, words)
    subject = things.pop("person")
    first = {name: place for place, name in enumerate(("top", "bottoms", "footwear"))}
    rest = [things[name] for name in sorted(things, key=lambda name: first.get(name, 9))]
    leads = {thing.lead for thing in rest}
    clauses = {
        lead: Clause(lead, tuple(_noun_phrase(thing) for thing in rest if thing.lead == lead))
        for lead in ("with", "in", "wears", "carries", "has")
        if lead in leads
    }
    return Wording(
        words=words,
        subject=_noun_phrase(subject),
        details=tuple(clauses[lead] for lead in ("with", "in") if lead in clauses),
        predicates=tuple(clauses[lead] for lead in ("wears", "carries", "has") if lead in clauses),
        absences=absences,
        synonyms={"wears": ("is dressed in", "has on"), "carries": ("holds", "is carrying")},
    )


def _parts(group: Group) -> tuple[str, str]:
    """Split a group's name into a thing and its property, "" for none."""
    words = group.name.replace("-", "_").strip("_").split("_")
    if group.kind == "flag":
        return " ".join(filter(None, words)), ""
    prop = words.pop() if len(words) > 1 and words[-1].lower() in _PROPERTIES else ""
    thing = " ".join(filter(None, words))
    return _SAME.get(thing.lower(), thing), prop


def _place(name: str, prop: str, group: Group) -> tuple[str, str]:
    """The thing that a group is about, and whether the group names it or describes it."""
    last = name.split()[-1].lower()
    if name == "gender":
        return "person", "head"
    if name == "age":
        return "person", "adjective"
    if name in ("sleeve", "sleeves"):
        return "top", "adjective"
    names_it = group.kind == "flag" or last in (*_WORN, *_CARRIED, *_CARRYING)
    return name, "head" if prop in ("", "type") and names_it else "adjective"


def _lead(key: str, group: Group) -> str:
    last = key.split()[-1].lower()
    if last in _WORN:
        return "wears"
    if last in (*_CARRIED, *_CARRYING) or last.endswith("bag"):
        return "carries"
    if key == "view":
        return "in"
    return "has" if group.kind == "flag" else "with"


def _words(value: str, name: str, is_head: bool) -> str:
    if name == "gender":
        return _PEOPLE.get(value.lower(), f"a {value} person")
    if name in ("sleeve", "sleeves"):
        return value if value.endswith("less") else f"{value}-sleeved"
    if name == "age" and any(map(str.isdigit, value)):
        return f"{value.replace(' ', '-')}-year-old"
    if name == "age" and value == "child":
        return "very young"
    return _with_article(value) if is_head else value


def _with_article(noun: str) -> str:
    last = noun.split()[-1].lower()
    plural = last.endswith("s") and not last.endswith("ss")
    if plural or last in _NOT_COUNTED or noun == "view" or noun[0].isdigit():
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _tell_apart(thing: _Thing, schema: AttributeSchema, words: dict[str, str]) -> None:
    """Append the property where two attributes of a thing share a word: "short-length"."""
    names = [name for name in (thing.head, *thing.adjectives) if name]
    bits = [bit for bit in words if bit.split("=")[0] in names]
    count = Counter(words[bit] for bit in bits)
    for bit in bits:
        if count[words[bit]] > 1 and bit.split("=")[0] in thing.adjectives:
            group = bit.split("=")[0]
            prop = _parts(schema.group(group))[1]
            words[bit] += f"-{prop or group.replace('_', '-')}"


def _noun_phrase(thing: _Thing) -> NounPhrase:
    return NounPhrase(thing.noun, head=thing.head, adjectives=tuple(thing.adjectives))
