"""The probability of a description of an image, over the categories that a model was trained on.

What a description does not say is summed over, not guessed: its score is the share that the
categories agreeing with it have in softmax(cosine / T) over all whole sentences of training. [ours]
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt8

from aima_jax.attributes import AttributeSchema, agreement
from aima_jax.text import PromptTemplate

Encode = Callable[[Sequence[str]], Float[np.ndarray, "sentences dim"]]

_COMPLETIONS = 16  # of a description with which no category agrees
_BLOCK_ELEMENTS = 2**22  # float64 values of an array at once


@dataclasses.dataclass(frozen=True)
class Bank:
    """What a model knows: its training categories, each with its whole sentence.

    All is computed in float64, in blocks of images.

    Attributes:
        features: of the sentences, L2-normalised.
        attributes: bits of the categories.
        temperature: T, that divides cosines.

    Raises:
        ValueError: the sizes differ, there is no category, or the temperature is too small.
    """

    features: Float[np.ndarray, "category dim"]
    attributes: UInt8[np.ndarray, "category attributes"]
    temperature: float

    def __post_init__(self):
        if len(self.features) != len(self.attributes) or not len(self.features):
            raise ValueError(
                f"a bank needs features and attributes of one category or more, it has "
                f"{len(self.features)} and {len(self.attributes)}"
            )
        if not self.temperature >= 0.005:  # exp(2 / T) must be a number
            raise ValueError(f"the temperature must be 0.005 or more, it is {self.temperature}")

    def normaliser(self, images: Float[np.ndarray, "images dim"]) -> Float[np.ndarray, "images"]:
        """Return log Σ_c exp(v·t_c / T) over all categories c, one number for each image v."""
        parts = [np.log(mass.sum(1)) + top for _, mass, top in self._masses(images)]
        return np.concatenate([np.empty(0), *parts])

    def agreeing(
        self, said: Int8[np.ndarray, "descriptions attributes"]
    ) -> Bool[np.ndarray, "category descriptions"]:
        """Return which categories agree with what descriptions say."""
        return agreement(self.attributes, said)

    def log_probabilities(
        self,
        said: Int8[np.ndarray, "descriptions attributes"],
        images: Float[np.ndarray, "images dim"],
        completions: Mapping[int, Float[np.ndarray, "sentences dim"]],
    ) -> Float[np.ndarray, "descriptions images"]:
        """Return log p(description | image): log of the agreeing categories' share of all.

        Args:
            said: what the descriptions say of each bit, as `AttributeSchema.said` gives it.
            images: features, L2-normalised.
            completions: of each description with which no category agrees, what `complete` returns:
                features of sentences that join the bank for this description.
        """
        agrees = self.agreeing(said)
        chosen = np.concatenate([agrees, ~agrees], axis=1).astype(np.float64)
        unknown = np.flatnonzero(~agrees.any(axis=0))
        added = [np.asarray(completions[row], np.float64) for row in unknown.tolist()]
        joined = np.concatenate([np.empty((0, self.features.shape[1])), *added])
        starts = np.cumsum([0, *map(len, added)])[:-1]
        scores = np.empty((len(said), len(images)))
        for block, mass, top in self._masses(images, width=2 * len(said) + len(joined)):
            # Both shares are sums of positive terms: exact where p is near 0 and near 1.
            agreeing, others = np.split(mass @ chosen, 2, axis=1)
            if len(joined):
                exponents = np.asarray(images[block], np.float64) @ joined.T / self.temperature
                sums = np.add.reduceat(np.exp(exponents - top[:, None]), starts, axis=1)
                agreeing[:, unknown] = sums
            with np.errstate(divide="ignore"):
                scores[:, block] = -np.log1p(others / agreeing).T
        return scores

    def whole(
        self,
        cosines: Float[np.ndarray, "descriptions images"],
        normaliser: Float[np.ndarray, "images"],
    ) -> Float[np.ndarray, "descriptions images"]:
        """Return scores of whole descriptions, in the order of their probabilities.

        At most one category agrees with a whole description, and its only completion is itself:
        v·t / T of its own sentence less the normaliser ranks as `log_probabilities` does.
        """
        return cosines.astype(np.float64) / self.temperature - normaliser

    def attribute_probabilities(
        self, images: Float[np.ndarray, "images dim"]
    ) -> Float[np.ndarray, "images attributes"]:
        """Return the probability that each bit holds, for each image."""
        attributes = self.attributes.astype(np.float64)
        parts = [mass @ attributes / mass.sum(1)[:, None] for _, mass, _ in self._masses(images)]
        return np.concatenate([np.empty((0, attributes.shape[1])), *parts])

    def _masses(
        self, images: Float[np.ndarray, "images dim"], width: int = 1
    ) -> Iterator[tuple[slice, Float[np.ndarray, "block category"], Float[np.ndarray, "block"]]]:
        """Blocks of images with exp(v·t_c / T - top), and the greatest exponent as `top`."""
        features = np.asarray(self.features, np.float64).T / self.temperature
        size = max(1, _BLOCK_ELEMENTS // max(len(self.features), width))
        for start in range(0, len(images), size):
            block = slice(start, min(start + size, len(images)))
            exponents = np.asarray(images[block], np.float64) @ features
            top = exponents.max(axis=1)
            yield block, np.exp(exponents - top[:, None]), top


def complete(
    bank: Bank,
    template: PromptTemplate,
    said: Int8[np.ndarray, "descriptions attributes"],
    encode: Encode,
) -> dict[int, Float[np.ndarray, "sentences dim"]]:
    """Complete each description with which no category of a bank agrees, in up to 16 ways.

    What it does not say is taken from the nearest categories; a whole description has itself as
    its only completion.

    Returns:
        By the number of the description the features of the sentences of its completions.

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
    """Whole vectors that agree with a description, made of the categories that nearly do."""
    wrong = ((categories == 0) & (said == 1)) | ((categories == 1) & (said == -1))
    position = {bit: place for place, bit in enumerate(schema.names)}
    completed: dict[bytes, UInt8[np.ndarray, attributes]] = {}
    for category in np.argsort(wrong.sum(axis=1), kind="stable"):
        bits = np.where(said == 0, categories[category], said == 1).astype(np.uint8)
        for group in schema.groups:
            places = [position[bit] for bit in group.bits]
            if group.kind == "exclusive" and (said[places] == 1).any():
                bits[places] = said[places] == 1
        try:
            schema.decode(bits)
        except ValueError:  # of a group one value must hold, and this category's does not agree
            continue
        completed[bits.tobytes()] = bits
        if len(completed) == _COMPLETIONS:
            break
    if not completed:
        raise ValueError("no person can agree with the description: it contradicts itself")
    return np.stack(list(completed.values()))
