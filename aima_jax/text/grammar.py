"""The parts of a prompt: words, noun phrases, clauses, and lists of them.

A prompt is a sequence of pieces. A piece is some words and the name of their attribute phrase, or
None for words that belong to no attribute: articles, prepositions, verbs, commas, and nouns that
several attributes share, such as "hair" in "long black hair".
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Piece = tuple[str, str | None]
# The words of the attributes that are set, by the name of the group or of the single bit.
Words = Mapping[str, Sequence[Piece]]

_ARTICLE = re.compile(r"^an? ")


@dataclasses.dataclass(frozen=True)
class NounPhrase:
    """A thing and its attributes: "a long-sleeved red top with a logo".

    Attributes are given by their group or, for a bit placed apart from the rest of its group, by
    the name of that bit. A noun with an article is countable; the article is adapted as needed.
    """

    noun: str = ""  # names the thing when no value of `head` does
    head: str = ""  # attribute whose value names the thing; further values follow "with"
    adjectives: tuple[str, ...] = ()  # attributes before the noun
    features: tuple[str, ...] = ()  # attributes after the noun, following "with"

    @functools.cached_property
    def attributes(self) -> tuple[str, ...]:
        """All attributes of the thing."""
        return tuple(filter(None, (*self.adjectives, self.head, *self.features)))

    def holds(self, said: Words) -> bool:
        """Whether any attribute of the thing is mentioned."""
        return not said.keys().isdisjoint(self.attributes)

    def pieces(self, said: Words, *, articles: bool) -> list[Piece]:
        """Return the words, e.g. "a casual black jacket with a sweater and a logo"."""
        adjectives = []
        for name in self.adjectives:
            if name in said:
                adjectives += listing([[value] for value in said[name]])
        thing, *others = said.get(self.head, [(self.noun, None)])
        pieces = _with_article([*adjectives, thing], articles)
        others += [value for name in self.features for value in said.get(name, ())]
        if others:
            pieces.append(("with", None))
            pieces += listing([_with_article([other], articles) for other in others])
        return pieces


@dataclasses.dataclass(frozen=True)
class Clause:
    """A verb or preposition and the things it governs: "wears a red top and jeans"."""

    lead: str
    things: tuple[NounPhrase, ...]


@dataclasses.dataclass(frozen=True)
class Wording:
    """The words for a dataset's attributes: plain data, which can be stored in a file.

    `words` maps each bit to its words; a value that is not listed is its own word. If every prompt
    states an exclusive group's absence, like "gender=male" where only `female` has a bit, it is
    listed too. `absences` maps groups to the words for their absence. `synonyms` maps words to
    alternatives: "a woman", "a top", "wears".
    """

    words: Mapping[str, str]
    subject: NounPhrase
    details: tuple[Clause, ...]  # prepositions after the subject
    predicates: tuple[Clause, ...]  # verbs
    absences: Mapping[str, str]
    synonyms: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def things(self) -> tuple[NounPhrase, ...]:
        """All things in the prompt, the subject first."""
        clauses = (*self.details, *self.predicates)
        return (self.subject, *(thing for clause in clauses for thing in clause.things))

    def with_synonyms(self, generator: np.random.Generator) -> "Wording":
        """The same wording with some words replaced by a synonym."""

        def choose(words: str) -> str:
            return str(generator.choice((words, *self.synonyms.get(words, ()))))

        def clause(one: Clause) -> Clause:
            return Clause(choose(one.lead), tuple(map(noun_phrase, one.things)))

        def noun_phrase(one: NounPhrase) -> NounPhrase:
            return dataclasses.replace(one, noun=choose(one.noun) if one.noun else "")

        return dataclasses.replace(
            self,
            words={name: choose(words) for name, words in self.words.items()},
            subject=noun_phrase(self.subject),
            details=tuple(map(clause, self.details)),
            predicates=tuple(map(clause, self.predicates)),
        )

    def reordered(self, generator: np.random.Generator) -> "Wording":
        """The same wording with clauses, and the things in them, in random order."""

        def shuffle(items: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(items[place] for place in generator.permutation(len(items)))

        def clauses(all_of_them: tuple[Clause, ...]) -> tuple[Clause, ...]:
            return shuffle([Clause(one.lead, shuffle(one.things)) for one in all_of_them])

        return dataclasses.replace(
            self, details=clauses(self.details), predicates=clauses(self.predicates)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the wording as plain JSON data, for a checkpoint or a manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Wording":
        """Return the wording from `to_dict`'s data, also after a JSON round trip.

        Raises:
            ValueError: `data` is not a wording.
        """

        def noun_phrase(one: Mapping[str, Any]) -> NounPhrase:
            lists = {name: tuple(one[name]) for name in ("adjectives", "features")}
            return NounPhrase(**{**one, **lists})

        def clauses(all_of_them: Sequence[Mapping[str, Any]]) -> tuple[Clause, ...]:
            return tuple(
                Clause(one["lead"], tuple(map(noun_phrase, one["things"]))) for one in all_of_them
            )

        try:
            return cls(
                words=dict(data["words"]),
                subject=noun_phrase(data["subject"]),
                details=clauses(data["details"]),
                predicates=clauses(data["predicates"]),
                absences=dict(data["absences"]),
                synonyms={word: tuple(others) for word, others in data["synonyms"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a wording: {error!r} in {data!r}") from error


def things(*attributes: str) -> tuple[NounPhrase, ...]:
    """Return noun phrases for attributes that are each a thing: a hat, a backpack."""
    return tuple(NounPhrase(head=attribute) for attribute in attributes)


def listing(items: Sequence[list[Piece]], *, serial_comma: bool = False) -> list[Piece]:
    """Return "a, b and c" or, with the serial comma, "a, b, and c"."""
    pieces = list(items[0])
    for item in items[1:-1]:
        pieces += [(",", None), *item]
    if len(items) > 1:
        pieces += [(",", None)] * serial_comma + [("and", None), *items[-1]]
    return pieces


def without_article(words: str) -> str:
    """Return "top" for "a top"; words without an article are unchanged."""
    return _ARTICLE.sub("", words)


def _with_article(pieces: list[Piece], articles: bool) -> list[Piece]:
    """Move the article of the noun, the last piece, before its adjectives, or drop it."""
    *adjectives, (noun, name) = pieces
    bare = without_article(noun)
    phrase = [*adjectives, (bare, name)]
    if not articles or bare == noun:
        return phrase
    first_word = phrase[0][0]
    return [("an" if first_word[0] in "aeiou" else "a", None), *phrase]
