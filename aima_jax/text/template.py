"""Sentences about a person from attributes, and where in them each attribute is said."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from aima_jax.attributes import AttributeSchema, Description
from aima_jax.text.grammar import Clause, Held, Piece, Wording, listing
from aima_jax.text.prompts import WORDINGS


class Phrase(NamedTuple):
    """The words `text[start:end]` that say an attribute: a bit's name, of an absence the group's.

    They are the words that give the value, "long" of "long hair", "backpack" of "a backpack", or
    "no hat". Articles, commas and all else around them belong to no phrase: our decision.
    """

    name: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A prompt and its attribute phrases, in the order of the text."""

    text: str
    phrases: tuple[Phrase, ...]


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """Puts descriptions by a schema into words.

    The templates are "sentence", a full sentence; "list", its terse form; and "absence", the
    sentence that also states what is absent. They are our decision: the paper's prompt is not known
    to us. Raises ValueError for a schema without prompts and for another name.
    """

    schema: AttributeSchema
    name: str = "sentence"

    def __post_init__(self):
        available = self.available(self.schema)
        if self.name not in available:
            raise ValueError(
                f"no prompt template {self.name!r} for schema {self.schema.name!r}; "
                f"expected one of {', '.join(available)}"
            )

    @staticmethod
    def available(schema: AttributeSchema) -> tuple[str, ...]:
        """Returns the names of a schema's templates; ValueError where it has none."""
        if schema.name not in WORDINGS:
            raise ValueError(
                f"no prompt templates for schema {schema.name!r}; "
                f"expected one of {', '.join(WORDINGS)}"
            )
        return tuple(_RENDERERS)

    def render(self, description: UInt8[np.ndarray, "attributes"] | Mapping[str, Any]) -> Sentence:
        """Returns the sentence for a bit vector, all known, or for a dict, which may be partial.

        What a dict leaves out is unknown and not mentioned. Raises ValueError for what the schema
        does not have.
        """
        if isinstance(description, Mapping):
            known = self.schema.validate(description)
        else:
            known = self.schema.decode(description)
        held, absences = self._put_into_words(known)
        return _assemble(_RENDERERS[self.name](self._wording, held, absences))

    @property
    def _wording(self) -> Wording:
        return WORDINGS[self.schema.name]

    @functools.cached_property
    def _pieces(self) -> dict[str, Piece]:
        """The words and phrase name of each bit, and of each absence that every prompt says."""
        words = self._wording.words
        pieces = {}
        for group in self.schema.groups:
            for bit in group.bits:
                pieces[bit] = (words.get(bit, bit.rpartition("=")[2]), bit)
            absence = f"{group.name}={group.absent}"
            if group.absent is not None and absence in words:
                pieces[absence] = (words[absence], group.name)
        return pieces

    @functools.cached_property
    def _placed_alone(self) -> set[str]:
        """The bits that the wording places elsewhere than the rest of their group."""
        placed = {name for thing in self._wording.things for name in thing.attributes}
        return placed.intersection(self.schema.names)

    def _put_into_words(self, known: Description) -> tuple[Held, list[Piece]]:
        """Returns the words for what holds, by group or bit, and those for what is absent."""
        held: dict[str, list[Piece]] = {}
        absences = []
        for group in self.schema.groups:
            if group.name not in known:
                continue
            said = [name for name in group.statements(known[group.name]) if name in self._pieces]
            for name in said:
                place = name if name in self._placed_alone else group.name
                held.setdefault(place, []).append(self._pieces[name])
            if not said and group.name in self._wording.absences:
                absences.append((self._wording.absences[group.name], group.name))
        return held, absences


def _sentence(wording: Wording, held: Held, absences: list[Piece]) -> list[Piece]:
    """As in: A young woman with long hair wears a red top and black pants, and carries a bag."""
    return _statement(wording, held, [])


def _list(wording: Wording, held: Held, absences: list[Piece]) -> list[Piece]:
    """As in: young woman, long hair, red top, black pants, bag"""
    subject, *things = wording.things
    pieces = subject.pieces(held, articles=False)
    for thing in things:
        if thing.holds(held):
            pieces += [(",", None), *thing.pieces(held, articles=False)]
    return pieces


def _statement(wording: Wording, held: Held, absences: list[Piece]) -> list[Piece]:
    """As in: A young woman wears a red top, carries a bag, and has no hat and no backpack."""
    subject = wording.subject.pieces(held, articles=True)
    for detail in _say(wording.details, held):
        subject += detail
    predicates = _say(wording.predicates, held)
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


def _say(clauses: Sequence[Clause], held: Held) -> list[list[Piece]]:
    """Returns the clauses that have anything to tell, each with the things that have."""
    said = []
    for clause in clauses:
        things = [thing.pieces(held, articles=True) for thing in clause.things if thing.holds(held)]
        if things:
            said.append([(clause.lead, None), *listing(things)])
    return said


def _assemble(pieces: list[Piece]) -> Sentence:
    """Joins pieces by spaces, none before a comma or full stop, and notes where phrases lie."""
    text, phrases = "", []
    for words, name in pieces:
        if text and words not in (",", "."):
            text += " "
        start = len(text)
        text += words
        if name is not None:
            phrases.append(Phrase(name, start, len(text)))
    return Sentence(text, tuple(phrases))


_RENDERERS = {"sentence": _sentence, "list": _list, "absence": _statement}
