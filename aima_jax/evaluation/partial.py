"""Partial queries: protocols `partial` and `absence`, and attribute recognition. [ours]"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from aima_jax.attributes import AttributeSchema, Description, agreement
from aima_jax.evaluation.metrics import irrelevant_above, query_metrics, random_ranking
from aima_jax.evaluation.posterior import Bank, EncodeTexts, complete
from aima_jax.evaluation.similarity import GalleryFeatures
from aima_jax.text import PromptTemplate

GROUPS_SAID = {"1": 1, "2": 2, "3": 3, "5": 5, "all": None}
_DESCRIPTIONS = 500  # per number of groups
_SEED = 0
_LEAST = 20  # images with a bit, and images without it, needed to query the bit
_METRICS = ("R1", "P10", "mAP")

PerQuery = dict[str, Float[np.ndarray, "query"]]


class PartialQueries:
    """Queries of a gallery by descriptions, scored by posterior and by cosine.

    An image is relevant if it agrees with everything in a description.

    Args:
        template: puts the descriptions into words.
        encode: returns the L2-normalised features of sentences.
        bank: of the model.
        images: L2-normalised features of the gallery.
        attributes: of the gallery.
        gallery: of the same images, if already on the devices.
    """

    def __init__(
        self,
        template: PromptTemplate,
        encode: EncodeTexts,
        bank: Bank,
        images: Float[np.ndarray, "gallery dim"],
        attributes: UInt8[np.ndarray, "gallery attributes"],
        gallery: GalleryFeatures | None = None,
    ):
        self._template, self._encode, self._bank = template, encode, bank
        self._images, self._gallery = images, gallery or GalleryFeatures(images)
        self._attributes = attributes
        self._images_with = dict(
            zip(template.schema.names, attributes.sum(0).tolist(), strict=True)
        )

    def partial(self) -> dict[str, dict[str, Any]]:
        """Query for some attributes of an image, and for single attributes.

        Returns:
            By "posterior" and "cosine", for each number of groups given ("1" to "all") R1, P10 and
            mAP, the number of queries, and the same metrics of a random ranking; under "bits" P20
            of each bit, and as "base" the share of images that have it.
        """
        results: dict[str, dict[str, Any]] = {"posterior": {}, "cosine": {}}
        for name, groups in GROUPS_SAID.items():
            asked = draw_descriptions(self._template.schema, self._attributes, groups)
            for scoring, values in self._ask(asked).items() if asked else ():
                chance = random_ranking(values["relevant"], len(self._images))
                results[scoring][name] = {
                    **{metric: float(values[metric].mean()) for metric in _METRICS},
                    "queries": len(asked),
                    "random": {"R1": chance["R1"], "P10": chance["R1"], "mAP": chance["mAP"]},
                }
        bits = self._common_bits()
        for scoring, values in self._ask(list(bits.values())).items() if bits else ():
            results[scoring]["bits"] = _by_name(bits, {"P20": "P20", "base": "share"}, values)
        return results

    def absence(self) -> dict[str, dict[str, float]]:
        """Query for absences: of each flag, and of each group with a word for absence.

        Returns:
            By posterior, for each attribute that some images have and some do not: the AUC of
            images without it over images with it, P10, and as "base" the share without it.
        """
        absences = {}
        for group in self._template.schema.groups:
            with_it = sum(self._images_with[bit] for bit in group.bits)
            can_be_absent = group.kind == "flag" or group.absent is not None
            if can_be_absent and 0 < with_it < len(self._images):
                absences[group.name] = {group.name: group.absent or False}
        values = self._ask(list(absences.values()))["posterior"] if absences else {}
        return _by_name(absences, {"AUC": "AUC", "P10": "P10", "base": "share"}, values)

    def recognition(self) -> dict[str, Any]:
        """Compare each bit's posterior, with a threshold of 1/2, to the images' labels.

        Returns:
            For each bit that some images have and some do not, under "bits": "mA" (mean of the
            accuracies on images with it and without it), "F1", "AUC" and "base" (the share of
            images that have it); and the means of the first three.
        """
        probabilities = self._bank.attribute_probabilities(self._images)
        bits = {}
        for bit, scores, having in zip(
            self._images_with, probabilities.T, self._attributes.T.astype(bool), strict=True
        ):
            if having.all() or not having.any():
                continue
            seen = scores >= 0.5
            hits = (seen & having).sum()
            bits[bit] = {
                "mA": float((hits / having.sum() + (~seen & ~having).sum() / (~having).sum()) / 2),
                "F1": float(2 * hits / (seen.sum() + having.sum())),
                "AUC": area_under_curve(scores, having),
                "base": float(having.mean()),
            }
        means = {name: [bit[name] for bit in bits.values()] for name in ("mA", "F1", "AUC")}
        return {**{name: float(np.mean(of)) for name, of in means.items() if of}, "bits": bits}

    def _ask(self, descriptions: Sequence[Description]) -> dict[str, PerQuery]:
        """The metrics of each description by each scoring, and its number of relevant images."""
        rendered = [self._template.render(description) for description in descriptions]
        said = np.stack([sentence.said for sentence in rendered])
        texts, place = np.unique([sentence.text for sentence in rendered], return_inverse=True)
        sentences = self._encode(texts.tolist())[place]
        completions = complete(self._bank, self._template, said, self._encode)
        found = {"posterior": [], "cosine": []}
        for group, cosines in self._gallery.similarities(sentences):
            relevant = agreement(self._attributes, said[group]).T
            own = {
                row - group.start: features
                for row, features in completions.items()
                if group.start <= row < group.stop
            }
            agreeing = self._bank.agreeing(said[group])
            scores = self._bank.log_probabilities(agreeing, self._images, own)
            for scoring, rows in (("posterior", scores), ("cosine", cosines)):
                for row, hits in zip(rows, relevant, strict=True):
                    above = irrelevant_above(row, np.flatnonzero(hits))[1]
                    found[scoring].append((above, area_under_curve(row, hits), hits.sum()))
        results = {}
        for scoring, rows in found.items():
            above, areas, relevant = zip(*rows, strict=True)
            results[scoring] = query_metrics(list(above), precision_at=(10, 20)) | {
                "AUC": np.array(areas),
                "relevant": np.array(relevant),
                "share": np.array(relevant) / len(self._images),
            }
        return results

    def _common_bits(self) -> dict[str, Description]:
        """A description of each bit that enough images have, and enough do not."""
        descriptions, schema = {}, self._template.schema
        for group in schema.groups:
            for bit, value in zip(group.bits, group.values or (True,), strict=True):
                if _LEAST <= self._images_with[bit] <= len(self._images) - _LEAST:
                    descriptions[bit] = schema.validate({group.name: value})
        return descriptions


def draw_descriptions(
    schema: AttributeSchema, attributes: UInt8[np.ndarray, "gallery attributes"], groups: int | None
) -> list[Description]:
    """Draw 500 descriptions of images, with a fixed seed.

    Each draws an image with a value in at least `groups` groups, and then that many of these
    groups; all of them for None.
    """
    described = [
        {
            name: value
            for name, value in schema.decode(bits).items()
            if any(schema.group(name).statements(value).values())
        }
        for bits in attributes
    ]
    eligible = [each for each in described if len(each) >= (groups or 1)]
    if not eligible:
        return []
    random = np.random.default_rng((_SEED, groups or 0))
    descriptions = []
    for image in random.integers(len(eligible), size=_DESCRIPTIONS):
        names = list(eligible[image])
        chosen = random.choice(len(names), groups or len(names), replace=False)
        descriptions.append({names[place]: eligible[image][names[place]] for place in chosen})
    return descriptions


def area_under_curve(
    scores: Float[np.ndarray, "images"], having: Bool[np.ndarray, "images"]
) -> float:
    """Return the share of (positive, negative) image pairs that are ranked correctly.

    A tie counts half. NaN if there is no pair.
    """
    without = np.sort(scores[~having])
    pairs = having.sum() * len(without)
    if not pairs:
        return float("nan")
    below = np.searchsorted(without, scores[having], side="left").sum()
    not_above = np.searchsorted(without, scores[having], side="right").sum()
    return float((below + not_above) / 2 / pairs)


def _by_name(
    names: Iterable[str], columns: dict[str, str], values: PerQuery
) -> dict[str, dict[str, float]]:
    return {
        name: {column: float(values[of][row]) for column, of in columns.items()}
        for row, name in enumerate(names)
    }
