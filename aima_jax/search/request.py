"""What a gallery is asked for: attributes, words and pictures, with weights, with and without.

Each term has a logarithmic score: of attributes, log p(description | image); of words and pictures,
cosine / T. Without a description counts log(1 - p), without words their cosine with a minus. The
score of a request is the sum of these, each times its weight. [ours]

A gallery is asked in two steps: candidates, whose scores in float64 put them in order. A gallery
that holds p(category | image) has the best: p(description | image) is a sum of those. Any other
finds them by one vector: to first order log p is v · (m - M) / T + constant, for the mean m of the
sentences that agree with a description and the mean M of all, which misses many. Without
attributes, any gallery is exact.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from aima_jax.attributes import Description
from aima_jax.evaluation.similarity import first_places
from aima_jax.search.facts import Fact
from aima_jax.search.gallery import Gallery
from aima_jax.search.person_search import PersonSearch
from aima_jax.search.where import parse_where

RowScores = Float[np.ndarray, "rows"]

DEPTH = 1000  # candidates whose exact scores are computed
_WEIGHT = re.compile(r"(.*\S)\s*\^\s*(\d+(?:\.\d+)?)\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Term:
    """One thing that is asked for.

    Attributes:
        text: how it is shown.
        weight: above 0.
        without: ask for its absence.
        description: the attributes; None for words and pictures.
        feature: of words or of a picture; None for attributes.
    """

    text: str
    weight: float
    without: bool
    description: Description | None = None
    feature: Float[np.ndarray, "dim"] | None = None


class Found(NamedTuple):
    """A picture that was found.

    `probability` is that of all attributes asked for, each to the power of its weight, and None
    where none are; `cosine` the weighted mean of words and pictures, and None where none are.
    `score` is the one that there is, or the logarithmic score of both together.
    """

    rank: int
    name: str
    score: float
    probability: float | None
    cosine: float | None
    facts: dict[str, Fact]
    feature: Float[np.ndarray, "dim"]


@dataclasses.dataclass(frozen=True)
class Request:
    """Terms, a filter on the facts (search/where.py), and the least probability of attributes."""

    terms: tuple[Term, ...]
    where: str = ""
    above: float = 0.0

    @property
    def text(self) -> str:
        """What is asked for, in the words that are encoded."""
        parts = [
            ("without: " if term.without else "")
            + term.text
            + (f" (×{term.weight:g})" if term.weight != 1 else "")
            for term in self.terms
        ]
        return " + ".join(parts)


def parse_request(
    search: PersonSearch,
    queries: Sequence[str | Mapping[str, Any]] = (),
    *,
    without: Sequence[str | Mapping[str, Any]] = (),
    like: Sequence[Any] = (),
    where: str = "",
    above: float = 0.0,
) -> Request:
    """Read what people ask for.

    Args:
        search: the model.
        queries: attributes, as texts or dicts, or words. A text may end in its weight: "hat^2".
        without: the same, for what is not wanted.
        like: pictures, as `PersonSearch.encode_images` takes them.
        where: a filter on the facts.
        above: the least probability of the attributes.

    Raises:
        ValueError: nothing is asked for, or something is not of the schema, cannot be read, or
            asks for a probability where no attributes are.
        FileNotFoundError: there is no such picture.
    """
    terms = [_term(search, each, without=False) for each in queries]
    terms += [_term(search, each, without=True) for each in without]
    for picture, feature in zip(like, search.encode_images(list(like)), strict=True):
        name = os.fspath(picture) if isinstance(picture, str | os.PathLike) else "a picture"
        terms.append(Term(f"like {name}", 1.0, False, feature=feature))
    if not terms:
        raise ValueError("nothing is asked for: give attributes, words, or a picture to be like")
    if where:
        parse_where(where)
    if not 0 <= above <= 1:
        raise ValueError(f"a probability is between 0 and 1, it is {above}")
    if above and all(term.description is None for term in terms):
        raise ValueError("only attributes have a probability: ask for some, or leave it out")
    return Request(tuple(terms), where, above)


def find_pictures(
    search: PersonSearch,
    gallery: Gallery,
    request: Request,
    k: int = 10,
    *,
    skip: int = 0,
    depth: int = DEPTH,
) -> list[Found]:
    """Find the k pictures of a gallery that a request scores highest, best first.

    Args:
        search: the model that made the gallery.
        gallery: the gallery.
        request: as `parse_request` returns it.
        k: fewer where no more pass the filters.
        skip: of the best, those already seen.
        depth: candidates for attributes; at least twice those that are to be shown. A gallery that
            has no more is asked exactly.

    Raises:
        ValueError: another model made the gallery, its facts do not have what the filter names, or
            a number is out of range.
    """
    gallery.require_model(search.model_id)
    if k < 1 or skip < 0 or depth < 1:
        raise ValueError(f"k={k}, skip={skip}, depth={depth}; expected k and depth of 1 or more")
    attributes = any(term.description is not None for term in request.terms)
    keys = _candidates(
        search, gallery, request, max(depth, 2 * (skip + k)) if attributes else skip + k
    )
    rows = gallery.rows(keys if attributes else keys[skip:])
    total, probability, cosine = _scores(search, request, rows.features)
    order = np.argsort(-total, kind="stable") if attributes else np.arange(len(total))
    if request.above and probability is not None:
        order = order[probability[order] >= request.above]
    order = order[skip : skip + k] if attributes else order
    return [
        Found(
            skip + place,
            rows.names[row],
            float(total[row]),
            None if probability is None else float(probability[row]),
            None if cosine is None else float(cosine[row]),
            rows.facts[row],
            rows.features[row],
        )
        for place, row in enumerate(order.tolist(), start=1)
    ]


def _candidates(
    search: PersonSearch, gallery: Gallery, request: Request, count: int
) -> Shaped[np.ndarray, "keys"]:
    """Keys of the pictures of highest score, where attributes are asked for perhaps not quite."""
    attributes = [term for term in request.terms if term.description is not None]
    others = [term for term in request.terms if term.description is None]
    if attributes:
        said = [search.schema.said(term.description or {}) for term in attributes]
        agreeing = search.bank.agreeing(np.stack(said))
        vectors = np.array([term.feature for term in others], np.float32).reshape(-1, search.dim)
        every = None
        if agreeing.any(axis=0).all() and len(gallery) > count:
            every = gallery.every(search.bank, agreeing, vectors, request.where)
        if every is not None:
            if not len(every.keys):
                return every.keys
            total = np.zeros(len(every.keys))
            for term, share, rest in zip(attributes, every.agreeing, every.others, strict=True):
                hits, misses = (rest, share) if term.without else (share, rest)
                with np.errstate(divide="ignore"):
                    ratio = misses.astype(np.float64) / np.maximum(hits, 1e-45)
                total -= term.weight * np.log1p(ratio)
            for term, products in zip(others, every.products, strict=True):
                total += _signed(term) / search.temperature * products
            return every.keys[first_places(total, count)]
    vector = np.zeros(search.dim)
    for term in request.terms:
        if term.description is not None:
            vector += term.weight * search.direction(term.description, without=term.without)
        else:
            vector += _signed(term) / search.temperature * np.asarray(term.feature, np.float64)
    scale = max(float(np.linalg.norm(vector)), 1e-12)
    return gallery.nearest((vector / scale)[None].astype(np.float32), count, request.where)[1][0]


def _scores(
    search: PersonSearch, request: Request, features: Float[np.ndarray, "rows dim"]
) -> tuple[RowScores, RowScores | None, RowScores | None]:
    """Score, probability and cosine of some pictures, as of `Found`."""
    attributes = [term for term in request.terms if term.description is not None]
    others = [term for term in request.terms if term.description is None]
    logarithm, probability, cosine = np.zeros(len(features)), None, None
    if attributes:
        each = search.log_probabilities(
            [dict(term.description or {}) for term in attributes], features
        )
        for term, values in zip(attributes, each, strict=True):
            with np.errstate(divide="ignore"):
                values = np.log(-np.expm1(values)) if term.without else values
            logarithm += term.weight * values
        probability = np.exp(logarithm)
    if others:
        weights = np.array([_signed(term) for term in others])
        stacked = np.stack([np.asarray(term.feature, np.float64) for term in others])
        cosines = features.astype(np.float64) @ stacked.T @ weights
        cosine = cosines / np.abs(weights).sum()
        if not attributes:
            return cosine, None, cosine
        return logarithm + cosines / search.temperature, probability, cosine
    return np.exp(logarithm), probability, None


def _signed(term: Term) -> float:
    return -term.weight if term.without else term.weight


def _term(search: PersonSearch, query: str | Mapping[str, Any], *, without: bool) -> Term:
    weight = 1.0
    if isinstance(query, str) and (found := _WEIGHT.fullmatch(query)):
        query, weight = found[1], float(found[2])
        if not 0 < weight < math.inf:
            raise ValueError(f"{query}^{weight:g}: a weight is above 0")
    text, description = search.sentence(query), search.description(query)
    if description is not None:
        return Term(text, weight, without, description=description)
    return Term(text, weight, without, feature=search.feature(query))
