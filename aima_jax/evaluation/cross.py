"""Evaluation of a model on a dataset with another schema, in the shared attributes. [ours]

A table maps a schema to a common vocabulary. For each bit of the vocabulary it has the schema's
bits that each imply it, and the bits that each imply its absence; either may be None, for "if none
of the other is set". If both or neither are implied, the bit is unknown.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt8

from aima_jax.attributes import AttributeSchema, Description
from aima_jax.evaluation.metrics import METRICS, irrelevant_above, query_metrics, random_ranking
from aima_jax.evaluation.partial import area_under_curve
from aima_jax.evaluation.posterior import Bank, EncodeTexts
from aima_jax.evaluation.similarity import GalleryFeatures
from aima_jax.text import PromptTemplate

Meaning = tuple[Sequence[str] | None, Sequence[str] | None]
Meanings = Mapping[str, Meaning]

SharedStatements = Int8[np.ndarray, "rows shared"]


def evaluate_cross(
    template: PromptTemplate,
    encode: EncodeTexts,
    bank: Bank,
    images: Float[np.ndarray, "gallery dim"],
    attributes: UInt8[np.ndarray, "gallery attributes"],
    schema: AttributeSchema,
    *,
    own: Meanings,
    others: Meanings,
) -> dict[str, Any]:
    """Query every distinct description in the shared bits that occurs in a dataset's labels.

    An image is relevant if its labels give the same shared bits; an image whose labels give fewer
    or more, without contradiction, is undecided and removed from the query's gallery.

    Args:
        template: of the model, with its schema and wording.
        encode: returns the L2-normalised features of sentences.
        bank: of the model.
        images, attributes, schema: of the other dataset's gallery; L2-normalised features.
        own, others: the meaning of the bits of the model's and of the dataset's schema.

    Returns:
        "attributes" (the shared bits), "queries", "without_category" (queries that no category of
        the bank agrees with, which are scored by their own sentence), and by "posterior" over the
        bank and by "cosine" of the partial sentence R1, R5, R10, mAP and mINP; "random"; and under
        "bits", for each bit that some labels affirm and some deny, the AUC of its posterior and as
        "base" the share of images that have it, among images with a known value.

    Raises:
        ValueError: no attribute is shared.
    """
    shared = [bit for bit in own if bit in others]
    if not shared:
        raise ValueError(f"{template.schema.name!r} and {schema.name!r} share no attribute")
    gallery_said = translate(attributes, schema, others, shared)
    queries = np.unique(gallery_said, axis=0)
    queries = queries[(queries != 0).any(axis=1)]
    known = translate(bank.attributes, template.schema, own, shared)
    agreeing = ~_contradictions(known, queries)
    texts = [
        template.render(shared_description(one, template, own, shared)).text for one in queries
    ]
    distinct, place = np.unique(texts, return_inverse=True)
    sentences = encode(distinct.tolist())[place.ravel()]
    lost = np.flatnonzero(~agreeing.any(axis=0)).tolist()

    above: dict[str, list] = {"posterior": [], "cosine": []}
    chance = []
    for group, cosines in GalleryFeatures(images).similarities(sentences):
        joining = {
            row - group.start: sentences[row : row + 1]
            for row in lost
            if group.start <= row < group.stop
        }
        scores = bank.log_probabilities(agreeing[:, group], images, joining)
        unclear = ~_contradictions(gallery_said, queries[group]).T
        for query, score, cosine, row in zip(queries[group], scores, cosines, unclear, strict=True):
            same = (gallery_said == query).all(axis=1)
            kept = same | ~row
            relevant = np.flatnonzero(same[kept])
            chance.append(random_ranking(np.array([len(relevant)]), int(kept.sum())))
            for name, values in (("posterior", score), ("cosine", cosine)):
                above[name].append(irrelevant_above(values[kept], relevant)[1])
    metrics = {name: query_metrics(counts) for name, counts in above.items()}
    return {
        "attributes": shared,
        "queries": len(queries),
        "without_category": len(lost),
        **{
            name: {metric: float(values[metric].mean()) for metric in METRICS}
            for name, values in metrics.items()
        },
        "random": {name: float(np.mean([one[name] for one in chance])) for name in ("R1", "mAP")},
        "bits": _single_bits(shared, known, bank, images, gallery_said),
    }


def translate(
    attributes: UInt8[np.ndarray, "rows attributes"],
    schema: AttributeSchema,
    meanings: Meanings,
    shared: Sequence[str],
) -> SharedStatements:
    """Translate bits of a schema into shared bits: 1 present, -1 absent, 0 unknown."""
    place = {name: number for number, name in enumerate(schema.names)}
    said = np.zeros((len(attributes), len(shared)), np.int8)
    for column, bit in enumerate(shared):
        yes, no = meanings[bit]
        holds, lacks = (
            attributes[:, [place[name] for name in names or ()]].any(axis=1) for names in (yes, no)
        )
        holds = ~lacks if yes is None else holds
        lacks = ~holds if no is None else lacks
        said[:, column] = holds.astype(np.int8) - lacks
    return said


def shared_description(
    said: Int8[np.ndarray, "shared"],
    template: PromptTemplate,
    meanings: Meanings,
    shared: Sequence[str],
) -> Description:
    """Return the description in a model's own schema that shared statements affirm.

    If several bits can imply a statement, one is named if the other statements rule out the rest:
    trousers or shorts that are short are shorts. Absences are included only where every sentence
    states them, like "a man".
    """
    lacking, reasons = set(), []
    for bit, value in zip(shared, said.tolist(), strict=True):
        yes, no = (set(names or ()) for names in meanings[bit])
        if value:
            reasons.append(yes if value > 0 else no)
            lacking |= no if value > 0 else yes
    left = [reason - lacking for reason in reasons]
    holding = {bit for reason in left if len(reason) == 1 for bit in reason}
    description: Description = {}
    for group in template.schema.groups:
        values = [bit.partition("=")[2] for bit in group.bits if bit in holding]
        if group.kind == "independent" and values:
            description[group.name] = tuple(values)
        elif group.kind == "flag" and values:
            description[group.name] = True
        elif group.kind == "exclusive" and len(values) == 1:
            description[group.name] = values[0]
        elif (
            group.absent is not None
            and lacking.issuperset(group.bits)
            and f"{group.name}={group.absent}" in template.wording.words
        ):
            description[group.name] = group.absent
    return description


def _single_bits(
    shared: Sequence[str],
    known: SharedStatements,
    bank: Bank,
    images: Float[np.ndarray, "gallery dim"],
    gallery_said: SharedStatements,
) -> dict[str, dict[str, float]]:
    """AUC of each shared bit's posterior, over images with a known value, and the bit's share."""
    holding, lacking = (
        dataclasses.replace(bank, attributes=known == sign).attribute_probabilities(images)
        for sign in (1, -1)
    )
    bits = {}
    for column, bit in enumerate(shared):
        told = gallery_said[:, column] != 0
        having = gallery_said[told, column] == 1
        if having.any() and not having.all():
            scores = holding[told, column] - lacking[told, column]
            bits[bit] = {"AUC": area_under_curve(scores, having), "base": float(having.mean())}
    return bits


def _contradictions(
    a: Int8[np.ndarray, "a shared"], b: Int8[np.ndarray, "b shared"]
) -> Bool[np.ndarray, "a b"]:
    """Whether one affirms a bit that the other denies."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return np.abs(a) @ np.abs(b).T > a @ b.T
