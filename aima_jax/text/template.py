"""Sentences about a person from attributes, and the place of each attribute in them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int8, UInt8

from aima_jax.attributes import NOT, AttributeSchema, Description
from aima_jax.text.grammar import Clause, Piece, Wording, Words, listing, without_article

TEMPLATES = ("sentence", "list", "absence")


class Phrase(NamedTuple):
    """The words `text[start:end]` of an attribute; `name` is the bit's, for an absence the group's.

    They are the words that give the value: "long" in "long hair", "backpack" in "a backpack", or
    "no hat". Articles, commas and everything else around them belong to no phrase: our decision.
    """

    name: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
    """A prompt, its attribute phrases in text order, and what it states about each bit."""

    text: str
    phrases: tuple[Phrase, ...]
    said: Int8[np.ndarray, "attributes"]


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """Put descriptions in a schema into words.

    The templates are "sentence", a full sentence; "list", its terse form; and "absence", the
    sentence that also states absences. They are our decision: the paper's prompt is not known to
    us.

    Raises:
        ValueError: there is no template of this name, or the wording does not fit the schema.
    """

    schema: AttributeSchema
    name: str
    wording: Wording

    def __post_init__(self):
        if self.name not in TEMPLATES:
            raise ValueError(
                f"no prompt template {self.name!r}; expected one of {', '.join(TEMPLATES)}"
            )
        placed = {name for thing in self.wording.things for name in thing.attributes}
        unplaced = [
            group.name
            for group in self.schema.groups
            if group.name not in placed and not placed.issuperset(group.bits)
        ]
        if unplaced:
            raise ValueError(
                f"the wording has no place for {', '.join(unplaced)} of the schema "
                f"{self.schema.name!r}"
            )

    def render(self, description: UInt8[np.ndarray, "attributes"] | Mapping[str, Any]) -> Sentence:
        """Return the sentence for a bit vector, all known, or for a dict, which may be partial.

        The absences of a bit vector are stated only by the template "absence", the absences of a
        dict by every template; attributes missing from a dict are unknown and not mentioned.

        Raises:
            ValueError: the schema does not have a described attribute.
        """
        if isinstance(description, Mapping):
            known = self.schema.validate(description)
            absences = self._absences(known)
        else:
            known = self.schema.decode(description)
            absences = self._listed_absences(known) if self.name == "absence" else []
        pieces = _list if self.name == "list" else _statement
        text, phrases = _assemble(pieces(self.wording, self._said(known), absences))
        return Sentence(text, phrases, self.schema.said(description))

    def parse(self, text: str) -> Description | None:
        """Parse a description that a person typed; None if the text is free-form.

        Attributes are parts with an equals sign, names of flags, and the wording's absences:
        "upper_color!=red, backpack, no hat".

        Raises:
            ValueError: the text is empty, or contains an attribute that the schema does not have.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise ValueError("the query is empty; give attributes or words")
        flags = {group.name for group in self.schema.groups if group.kind == "flag"}
        known = {part for part in parts if part in flags or part.lower() in self._typed_absences}
        if not any("=" in part for part in parts) and len(known) < len(set(parts)):
            return None
        return self.schema.parse(
            ",".join(self._typed_absences.get(part.lower(), part) for part in parts)
        )

    @functools.cached_property
    def _typed_absences(self) -> dict[str, str]:
        """Map words for an absence to the attribute in the syntax of `AttributeSchema.parse`."""
        typed = {}
        for group in self.schema.groups:
            if group.kind == "flag":
                typed[self._absence_words(group.name)] = f"{group.name}=no"
            elif group.absent is not None and group.name in self.wording.absences:
                typed[self.wording.absences[group.name]] = f"{group.name}={group.absent}"
        return {words.lower(): attribute for words, attribute in typed.items()}

    @functools.cached_property
    def _pieces(self) -> dict[str, Piece]:
        """The words and phrase name of each bit, and of each absence that every prompt states."""
        words = self.wording.words
        pieces = {}
        for group in self.schema.groups:
            for bit in group.bits:
                value = bit.rpartition("=")[2].replace("_", " ")
                pieces[bit] = (words.get(bit, value), bit)
            absence = f"{group.name}={group.absent}"
            if group.absent is not None and absence in words:
                pieces[absence] = (words[absence], group.name)
        return pieces

    @functools.cached_property
    def _placed_alone(self) -> set[str]:
        """The bits that the wording places apart from the rest of their group."""
        placed = {name for thing in self.wording.things for name in thing.attributes}
        return placed.intersection(self.schema.names)

    def _place(self, name: str) -> str:
        return name if name in self._placed_alone else name.partition("=")[0]

    def _said(self, known: Description) -> Words:
        """The words for the attributes that are set, by group or bit."""
        said: dict[str, list[Piece]] = {}
        for group in self.schema.groups:
            value = known.get(group.name, ())
            names = [bit for bit, holds in group.statements(value).items() if holds]
            absence = f"{group.name}={group.absent}"
            if value == group.absent and absence in self._pieces:
                names = [absence]
            for name in names:
                said.setdefault(self._place(name), []).append(self._pieces[name])
        return said

    def _listed_absences(self, known: Description) -> list[Piece]:
        """The words that the wording lists for the absences of a complete description."""
        absences = self.wording.absences
        return [
            (absences[group.name], group.name)
            for group in self.schema.groups
            if group.name in absences and not any(group.statements(known[group.name]).values())
        ]

    def _absences(self, known: Description) -> list[Piece]:
        """The words for a dict's absences, listed or generated: "no hat", "no red top"."""
        pieces = []
        for group in self.schema.groups:
            value = known.get(group.name, ())
            if value is False or (value == group.absent and value is not None):
                if f"{group.name}={value}" not in self._pieces:  # "gender=male" becomes "a man"
                    pieces.append((self._absence_words(group.name), group.name))
            elif isinstance(value, tuple):
                for one in value:
                    if one.startswith(NOT):
                        bit = f"{group.name}={one.removeprefix(NOT)}"
                        pieces.append((self._negation(bit), f"{group.name}!={one[len(NOT) :]}"))
        return pieces

    def _absence_words(self, group: str) -> str:
        if group in self.wording.absences:
            return self.wording.absences[group]
        if self.schema.group(group).kind == "flag":
            return self._negation(group)
        return f"no {group.replace('_', ' ')}"

    def _negation(self, bit: str) -> str:
        """The word "no" and the bit with its thing, as in "no red top", "no skirt"."""
        place = self._place(bit)
        thing = next(thing for thing in self.wording.things if place in thing.attributes)
        words, _ = self._pieces[bit]
        if place in thing.features:
            return f"no {without_article(words)}"
        pieces = thing.pieces({place: [(words, None)]}, articles=False)
        return "no " + " ".join(without_article(word) for word, _ in pieces)


def _list(wording: Wording, said: Words, absences: list[Piece]) -> list[Piece]:
    """As in: young woman, long hair, red top, black pants, bag, no hat"""
    subject, *things = wording.things
    pieces = subject.pieces(said, articles=False)
    for thing in things:
        if thing.holds(said):
            pieces += [(",", None), *thing.pieces(said, articles=False)]
    for absence in absences:
        pieces += [(",", None), absence]
    return pieces


def _statement(wording: Wording, said: Words, absences: list[Piece]) -> list[Piece]:
    """As in: A young woman wears a red top, carries a bag, and has no hat and no backpack."""
    subject = wording.subject.pieces(said, articles=True)
    for detail in _say(wording.details, said):
        subject += detail
    predicates = _say(wording.predicates, said)
    if absences:
        predicates.append([("has", None), *listing([[absence] for absence in absences])])
    if predicates:
        has_list = any(("and", None) in predicate for predicate in predicates[:-1])
        commas = has_list or len(predicates) > 2
        pieces = [*subject, *listing(predicates, serial_comma=commas)]
    else:
        pieces = [("this is", None), *subject]
    first, name = pieces[0]
    return [(first[0].upper() + first[1:], name), *pieces[1:], (".", None)]


def _say(clauses: Sequence[Clause], said: Words) -> list[list[Piece]]:
    """The clauses with something to say, each with only the things that are mentioned."""
    groups = []
    for clause in clauses:
        things = [thing.pieces(said, articles=True) for thing in clause.things if thing.holds(said)]
        if things:
            groups.append([(clause.lead, None), *listing(things)])
    return groups


def _assemble(pieces: list[Piece]) -> tuple[str, tuple[Phrase, ...]]:
    """Join pieces with spaces, except before a comma or full stop, and record phrase positions."""
    text, phrases = "", []
    for words, name in pieces:
        if text and words not in (",", "."):
            text += " "
        start = len(text)
        text += words
        if name is not None:
            phrases.append(Phrase(name, start, len(text)))
    return text, tuple(phrases)
