"""The posterior probability of a description given an image, over the training categories.

Attributes missing from a description are marginalised out, not guessed: its score is the mass of
the agreeing categories in softmax(cosine / T) over all whole sentences of training. [ours]
"""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Int8, UInt8

from aima_jax.attributes import AttributeSchema, agreement
from aima_jax.checkpoint import Restored
from aima_jax.files import atomic_write
from aima_jax.text import PromptTemplate

EncodeTexts = Callable[[Sequence[str]], Float[np.ndarray, "sentences dim"]]

_log = logging.getLogger(__name__)

_COMPLETIONS = 16  # of a description that no category agrees with
_BLOCK_ELEMENTS = 2**22  # float64 values in an array at once


@dataclasses.dataclass(frozen=True)
class Bank:
    """A model's training categories, each with its whole sentence.

    Everything is computed in float64, in blocks of images.

    Attributes:
        features: of the sentences, L2-normalised.
        attributes: bits of the categories.
        temperature: T, which divides cosines.

    Raises:
        ValueError: the sizes differ, there is no category, or the temperature is too small.
    """

    features: Float[np.ndarray, "category dim"]
    attributes: UInt8[np.ndarray, "category attributes"]
    temperature: float

    def __post_init__(self):
        if len(self.features) != len(self.attributes) or not len(self.features):
            raise ValueError(
                f"a bank needs features and attributes of at least one category, as many of each; "
                f"it has {len(self.features)} and {len(self.attributes)}"
            )
        if not self.temperature >= 0.005:  # exp(2 / T) must be finite
            raise ValueError(f"the temperature is {self.temperature}; expected 0.005 or more")

    def normaliser(self, images: Float[np.ndarray, "images dim"]) -> Float[np.ndarray, "images"]:
        """Return log Σ_c exp(v·t_c / T) over all categories c, one number for each image v."""
        parts = [np.log(mass.sum(1)) + top for _, mass, top in self._masses(images)]
        return np.concatenate([np.empty(0), *parts])

    def agreeing(
        self, said: Int8[np.ndarray, "descriptions attributes"]
    ) -> Bool[np.ndarray, "category descriptions"]:
        """Return which categories agree with which descriptions."""
        return agreement(self.attributes, said)

    def log_probabilities(
        self,
        agreeing: Bool[np.ndarray, "category descriptions"],
        images: Float[np.ndarray, "images dim"],
        joining: Mapping[int, Float[np.ndarray, "sentences dim"]] | None = None,
    ) -> Float[np.ndarray, "descriptions images"]:
        """Return log p(description | image): the log of the agreeing categories' probability mass.

        Args:
            agreeing: as returned by `agreeing`.
            images: features, L2-normalised.
            joining: by a description's number, sentences added to the bank for it, whose mass alone
                counts. Required for each description that no category agrees with.

        Raises:
            ValueError: a description has neither.
        """
        joining = joining or {}
        rows = sorted(joining)
        agreeing = agreeing.copy()
        agreeing[:, rows] = False
        lost = set(np.flatnonzero(~agreeing.any(axis=0)).tolist()) - set(rows)
        if lost:
            raise ValueError(f"no category agrees with the descriptions {sorted(lost)[:5]}")
        chosen = np.concatenate([agreeing, ~agreeing], axis=1).astype(np.float64)
        joined = np.concatenate([self.features[:0], *(joining[row] for row in rows)])
        joined = joined.astype(np.float64).T / self.temperature
        starts = np.cumsum([0, *(len(joining[row]) for row in rows)])[:-1]
        scores = np.empty((agreeing.shape[1], len(images)))
        for block, mass, top in self._masses(images, width=2 * len(scores) + joined.shape[1]):
            # Both shares are sums of positive terms: accurate for p near 0 and near 1.
            share, others = np.split(mass @ chosen, 2, axis=1)
            if rows:
                exponents = images[block].astype(np.float64) @ joined - top[:, None]
                share[:, rows] = np.add.reduceat(np.exp(exponents), starts, axis=1)
            with np.errstate(divide="ignore"):
                scores[:, block] = -np.log1p(others / share).T
        return scores

    def shares(
        self, images: Float[np.ndarray, "images dim"]
    ) -> Float[np.ndarray, "images category"]:
        """Return p(category | image), float32: a description's p is the sum of those agreeing."""
        shares = np.empty((len(images), len(self.features)), np.float32)
        for block, mass, _ in self._masses(images):
            shares[block] = mass / mass.sum(axis=1, keepdims=True)
        return shares

    def whole(
        self,
        cosines: Float[np.ndarray, "descriptions images"],
        normaliser: Float[np.ndarray, "images"],
    ) -> Float[np.ndarray, "descriptions images"]:
        """Return scores of whole descriptions that rank like their probabilities.

        At most one category agrees with a whole description, and its only completion is itself:
        v·t / T of its own sentence minus the normaliser ranks like `log_probabilities`.
        """
        return cosines.astype(np.float64) / self.temperature - normaliser

    def attribute_probabilities(
        self, images: Float[np.ndarray, "images dim"]
    ) -> Float[np.ndarray, "images attributes"]:
        """Return the probability of each bit, for each image."""
        attributes = self.attributes.astype(np.float64)
        parts = [mass @ attributes / mass.sum(1)[:, None] for _, mass, _ in self._masses(images)]
        return np.concatenate([np.empty((0, attributes.shape[1])), *parts])

    def nearest(
        self, images: Float[np.ndarray, "images dim"], count: int
    ) -> tuple[Int[np.ndarray, "images count"], Float[np.ndarray, "images count"]]:
        """Return the `count` most probable categories for each image, and their probabilities."""
        count = min(count, len(self.features))
        categories = np.empty((len(images), count), np.int32)
        probabilities = np.empty((len(images), count), np.float32)
        for block, mass, _ in self._masses(images):
            found = np.argpartition(mass, -count, axis=1)[:, -count:]
            categories[block] = found
            shares = np.take_along_axis(mass, found, axis=1) / mass.sum(1)[:, None]
            probabilities[block] = shares
        return categories, probabilities

    def _masses(
        self, images: Float[np.ndarray, "images dim"], width: int = 1
    ) -> Iterator[tuple[slice, Float[np.ndarray, "block category"], Float[np.ndarray, "block"]]]:
        """Blocks of images with exp(v·t_c / T - top), and the largest exponent as `top`."""
        features = np.asarray(self.features, np.float64).T / self.temperature
        size = max(1, _BLOCK_ELEMENTS // max(len(self.features), width))
        for start in range(0, len(images), size):
            block = slice(start, min(start + size, len(images)))
            exponents = images[block].astype(np.float64) @ features
            top = exponents.max(axis=1)
            yield block, np.exp(exponents - top[:, None]), top


def load_bank(restored: Restored, encode: EncodeTexts, *, temperature: float) -> Bank:
    """Return a model's bank, from the file beside its checkpoint if that belongs to this model.

    Otherwise its sentences are encoded, and the file is written for the next time.

    Args:
        restored: the model.
        encode: returns the features of sentences.
        temperature: T, which divides cosines.
    """
    texts = [restored.template.render(bits).text for bits in restored.categories]
    text_id = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    path = restored.path.with_name(f"{restored.path.name}.bank.npz")
    features = None
    if jax.process_count() == 1:  # many hosts encode together, and some may not see the file
        features = _read_features(path, restored.model_id, text_id)
    if features is None:
        features = encode(texts)
        if jax.process_index() == 0:
            _write_features(path, model_id=restored.model_id, text_id=text_id, features=features)
    return Bank(features, restored.categories, temperature)


def _read_features(
    path: pathlib.Path, model_id: str, text_id: str
) -> Float[np.ndarray, "category dim"] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            fits = (str(file["model_id"]), str(file["text_id"])) == (model_id, text_id)
            return file["features"] if fits else None
    except Exception:  # from zip, zlib or numpy, depending on the damage
        return None


def _write_features(path: pathlib.Path, **content: Any) -> None:
    try:
        with atomic_write(path, shared=True) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)
    except OSError as error:  # a read-only folder
        _log.info("the training sentences' features are not cached: %s", error)


def complete(
    bank: Bank,
    template: PromptTemplate,
    said: Int8[np.ndarray, "descriptions attributes"],
    encode: EncodeTexts,
) -> dict[int, Float[np.ndarray, "sentences dim"]]:
    """Complete each description that no category of a bank agrees with, in up to 16 ways.

    The missing attributes are taken from the nearest categories; a whole description is its own
    only completion.

    Returns:
        By a description's number, the features of the sentences of its completions.

    Raises:
        ValueError: a description contradicts itself.
    """
    texts: dict[int, list[str]] = {}
    for row in np.flatnonzero(~bank.agreeing(said).any(axis=0)).tolist():
        completed = _completions(template.schema, bank.attributes, said[row])
        texts[row] = [template.render(bits).text for bits in completed]
    if not texts:
        return {}
    unique = sorted({text for part in texts.values() for text in part})
    features = dict(zip(unique, encode(unique), strict=True))
    return {row: np.stack([features[text] for text in part]) for row, part in texts.items()}


def _completions(
    schema: AttributeSchema,
    categories: UInt8[np.ndarray, "category attributes"],
    said: Int8[np.ndarray, "attributes"],
) -> UInt8[np.ndarray, "completions attributes"]:
    """Complete vectors that agree with a description, from the categories that nearly do."""
    wrong = ((categories == 0) & (said == 1)) | ((categories == 1) & (said == -1))
    near = categories[np.argsort(wrong.sum(axis=1), kind="stable")]
    bits = np.where(said == 0, near, said == 1).astype(np.uint8)
    position = {bit: place for place, bit in enumerate(schema.names)}
    for group in schema.groups:
        places = [position[bit] for bit in group.bits]
        if group.kind == "exclusive" and (said[places] == 1).any():
            bits[:, places] = said[places] == 1
    _, first = np.unique(bits, axis=0, return_index=True)
    completed = []
    for row in np.sort(first):
        try:
            schema.decode(bits[row])
        except ValueError:  # a group needs one value, and this category's does not agree
            continue
        completed.append(bits[row])
        if len(completed) == _COMPLETIONS:
            break
    if not completed:
        raise ValueError("no person can match the description: it contradicts itself")
    return np.stack(completed)
