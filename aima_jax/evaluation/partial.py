"""What people ask in parts: protocols `partial` and `absence`, and attribute recognition. [ours]"""

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
_DESCRIPTIONS = 500  # for each number of groups
_SEED = 0
_LEAST = 20  # images with a bit, and images without it, for the bit to be asked
_METRICS = ("R1", "P10", "mAP")

PerQuery = dict[str, Float[np.ndarray, "query"]]


class PartialQueries:
    """A gallery that is asked descriptions, by posterior and by cosine.

    An image is relevant if it agrees with all that a description says.

    Args:
        template: puts the descriptions into words.
        encode: returns the features of sentences, L2-normalised as are the gallery's.
        bank: of the model.
        images: features of the gallery.
        attributes: of the gallery.
        gallery: of the same images, where it is on the devices already.
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
        """Ask for some attributes of an image, and for single ones.

        Returns:
            By "posterior" and "cosine", for each number of groups said ("1" to "all") R1, P10 and
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
        """Ask for images without something: each flag, and each group with a word for none.

        Returns:
            By posterior, for each that some images have and some have not: the AUC of images
            without it over images with it, P10, and as "base" the share of images without it.
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
        """Compare each bit's posterior with what the images have, a bit being seen from 1/2 on.

        Returns:
            For each bit that some images have and some have not, under "bits": "mA" (mean of the
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
        """The metrics of each description by each scoring, and how many images are relevant."""
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
        """A description of each bit that enough images have, and enough have not."""
        descriptions, schema = {}, self._template.schema
        for group in schema.groups:
            for bit, value in zip(group.bits, group.values or (True,), strict=True):
                if _LEAST <= self._images_with[bit] <= len(self._images) - _LEAST:
                    descriptions[bit] = schema.validate({group.name: value})
        return descriptions


def draw_descriptions(
    schema: AttributeSchema, attributes: UInt8[np.ndarray, "gallery attributes"], groups: int | None
) -> list[Description]:
    """Draw 500 descriptions of images, always the same ones.

    Each draws an image that has at least `groups` groups with a value that holds, and as many of
    these; all of them for None.
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
    """Return the share of pairs of an image with and one without that are in this order.

    An equal score counts half. NaN where there is no such pair.
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
