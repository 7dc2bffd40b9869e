"""A trained model that pictures can be searched with."""

import functools
import logging
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from aima_jax.attributes import Description
from aima_jax.checkpoint import Restored
from aima_jax.convert import restore
from aima_jax.data.pictures import Source as Picture
from aima_jax.data.pictures import in_threads, open_picture, read_pixels
from aima_jax.evaluation.encoder import Encoder
from aima_jax.evaluation.posterior import Bank, complete, load_bank
from aima_jax.evaluation.report import draw_ranking
from aima_jax.evaluation.similarity import top_k
from aima_jax.parameters import flatten
from aima_jax.text import tokenize
from aima_jax.text.tokenizer import encode

_log = logging.getLogger(__name__)

Query = Mapping[str, Any] | str | Float[np.ndarray, "dim"]


class PersonSearch:
    """A model that encodes pictures, attributes and words, and ranks pictures by them.

    A query is a dict of attributes, of which any may be left out; a str; or a feature vector, for
    instance that of a picture. A str with an equals sign, and one that names nothing but flags of
    the schema and absences ("backpack, no hat"), is taken as attributes, any other as words.

    Attributes are scored by their posterior, the probability of the description given the image
    (evaluation/posterior.py), words and feature vectors by cosine similarity: features are
    L2-normalised.
    """

    def __init__(self, restored: Restored):
        self.schema = restored.schema
        self.template = restored.template
        self.image_size = tuple(restored.config["image_size"])
        self.checkpoint = restored.path
        self.model_id = restored.model_id
        self.dim = restored.model.config.clip.dim
        self._restored = restored
        self._encoder = Encoder(restored.model)
        self._params = flatten(restored.model)
        self._trained_words = frozenset(restored.words["trained"])
        self._warn_of_zero_words()

    @property
    def temperature(self) -> float:
        """What divides cosines in the posterior of a description."""
        return self._restored.config["posterior_temperature"]

    @classmethod
    def load(cls, run: str | os.PathLike[str]) -> "PersonSearch":
        """Load a run's best checkpoint, the one named, or an exported file; see `aima_jax.load`."""
        return cls(restore(run))

    def encode_images(self, images: Sequence[Picture]) -> Float[np.ndarray, "images dim"]:
        """Features of PIL images, arrays uint8[height, width, 3] or paths, of any size.

        Raises:
            FileNotFoundError: a path leads nowhere.
            ValueError: one is not a picture, or is damaged; the message names it.
        """
        _require_list(images, "encode_images", "pictures")

        def pixels(numbered: tuple[int, Picture]) -> UInt8[np.ndarray, "height width 3"]:
            index, picture = numbered
            return self.pixels(picture, name=f"image {index}")

        features = self.encode_pixels(in_threads(pixels, enumerate(images)))
        return np.array(list(features), np.float32).reshape(-1, self.dim)

    def encode_attributes(
        self, descriptions: Sequence[Mapping[str, Any]]
    ) -> Float[np.ndarray, "queries dim"]:
        """Features of descriptions, whole or partial: what one leaves out is unknown.

        Raises:
            ValueError: an attribute or value that the schema does not have.
        """
        _require_list(descriptions, "encode_attributes", "dicts")
        return self.encode_text([self.template.render(each).text for each in descriptions])

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "queries dim"]:
        """Features of free words.

        Raises:
            ValueError: a text is longer than the model's context.
        """
        _require_list(texts, "encode_text", "texts")
        return self._encoder.sentences(self._params, tokenize(texts))

    def attributes(self, images: Sequence[Picture]) -> Float[np.ndarray, "images attributes"]:
        """The probability of each bit of the schema in each picture; raises as `encode_images`."""
        return self.bank.attribute_probabilities(self.encode_images(images)).astype(np.float32)

    def rank(
        self,
        query: Query,
        image_features: Float[np.ndarray, "gallery dim"],
        k: int = 10,
        *,
        normalised: bool = False,
    ) -> list[tuple[int, float]]:
        """Index and score of the `k` images that match a query best, best first.

        The score is the probability of attributes, and the cosine similarity of all else.

        Args:
            query: attributes, words, or a feature vector.
            image_features: as `encode_images` returns them.
            k: all images if there are fewer.
            normalised: score words and vectors by cosine / T less the logarithm of the sum of its
                exponentials over the training sentences: what is near to every sentence sinks.

        Raises:
            ValueError: the query is not of the schema, or a shape or `k` is not as expected.
        """
        shape = np.shape(image_features)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != self.dim:
            raise ValueError(
                f"image_features has the shape {list(shape)}; expected [images, {self.dim}], as "
                "encode_images returns it, of one image or more"
            )
        features = np.asarray(image_features, np.float32)
        description = self.description(query)
        if description is None and not normalised:
            scores, index = top_k(self.feature(query)[None], features, k)
            return [(int(i), float(s)) for i, s in zip(index[0], scores[0], strict=True)]
        if k < 1:
            raise ValueError(f"k must be at least 1, it is {k}")
        if description is None:
            cosines = features @ self.feature(query)
            scores = self.bank.whole(cosines[None], self.bank.normaliser(features))[0]
        else:
            scores = np.exp(self.log_probabilities([description], features)[0])
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(i), float(scores[i])) for i in best]

    def show(self, query: Query, images: Sequence[Picture], k: int = 10) -> Image.Image:
        """Draw the query's sentence and the `k` images that match it best; raises as `rank`."""
        ranked = self.rank(query, self.encode_images(images), k)
        return draw_ranking(
            self.sentence(query),
            [open_picture(images[index]) for index, _ in ranked],
            scores=[score for _, score in ranked],
        )

    def sentence(self, query: Query) -> str:
        """What a query says, in the words that are encoded; nothing for a feature vector.

        Raises:
            ValueError: the query is empty, or not of the schema.
        """
        description = self.description(query)
        if description is None:
            return query.strip() if isinstance(query, str) else ""
        return self.template.render(description).text

    def pixels(
        self, picture: Picture, *, name: str = "the picture"
    ) -> UInt8[np.ndarray, "height width 3"]:
        """A picture in the model's `image_size`, resized as in training; see `open_picture`."""
        return read_pixels(picture, self.image_size, name=name)

    def encode_pixels(
        self, pixels: Iterable[UInt8[np.ndarray, "height width 3"]]
    ) -> Iterator[Float[np.ndarray, "dim"]]:
        """Features of what `pixels` returns for each picture, one after the other.

        The device works on a batch while the next one is drawn from `pixels`.
        """
        return self._encoder.pictures(self._params, pixels)

    @functools.cached_property
    def bank(self) -> Bank:
        """The training categories, read from beside the checkpoint or encoded once."""
        return load_bank(self._restored, self.encode_text, temperature=self.temperature)

    def log_probabilities(
        self, descriptions: Sequence[Description], features: Float[np.ndarray, "gallery dim"]
    ) -> Float[np.ndarray, "descriptions gallery"]:
        """log p(description | image) of each description and image; raises as `schema.said`."""
        said = np.stack([self.schema.said(each) for each in descriptions])
        joining = complete(self.bank, self.template, said, self.encode_text)
        return self.bank.log_probabilities(self.bank.agreeing(said), features, joining)

    def direction(self, description: Description, *, without: bool) -> Float[np.ndarray, "dim"]:
        """The vector whose product with an image's feature is log p to first order, or log(1 - p).

        That is the mean of the sentences that agree, or do not, less that of all, over T.
        """
        said = self.schema.said(description)[None]
        agreeing = self.bank.agreeing(said)[:, 0]
        features = self.bank.features.astype(np.float64)
        if agreeing.all() or not agreeing.any():
            joining = complete(self.bank, self.template, said, self.encode_text)
            away = np.concatenate([*joining.values(), features[agreeing]]).mean(axis=0)
            away -= features.mean(axis=0)
            return (-away if without else away) / self.temperature
        return (
            features[agreeing != without].mean(axis=0) - features.mean(axis=0)
        ) / self.temperature

    def description(self, query: Query) -> Description | None:
        """The attributes of a query; None where it is words or a vector; raises as `rank`."""
        if isinstance(query, str):
            return self.template.parse(query)
        return self.schema.validate(query) if isinstance(query, Mapping) else None

    def feature(self, query: Query) -> Float[np.ndarray, "dim"]:
        """The feature of words, or a feature vector itself, L2-normalised; raises as `rank`."""
        if isinstance(query, str):
            self._warn_of_new_words(query)
            return self.encode_text([query.strip()])[0]
        feature = np.asarray(query)
        if feature.shape != (self.dim,):
            raise ValueError(
                f"the query is {reprlib.repr(query)}; expected a dict of attributes, a str, or a "
                f"feature vector of {self.dim} numbers"
            )
        return feature / max(np.linalg.norm(feature), 1e-12)

    def _warn_of_new_words(self, text: str) -> None:
        """Name the words of a text that neither training nor CLIP has seen."""
        if self._restored.words["from_clip"]:
            return
        words = re.findall(r"[^\W_]+", text)
        new = [word for word in words if not self._trained_words.issuperset(encode(word))]
        if new:
            _log.warning("this model has never seen the words %s", ", ".join(dict.fromkeys(new)))

    def _warn_of_zero_words(self) -> None:
        """Warn of a model whose optimizer has driven the words that it did not train to zero."""
        embedding = np.asarray(self._params["clip.text.token_embedding"])
        zero = np.all(embedding == 0, axis=1)
        zero[list(self._trained_words)] = False
        if zero.any():
            _log.warning(
                "%d of %d words of %s are exactly zero: an optimizer added weight decay where "
                "there was no gradient, and these words are lost; train again with this version",
                zero.sum(),
                len(zero),
                self.checkpoint,
            )


def _require_list(items: Any, function: str, of: str) -> None:
    if isinstance(items, str | Mapping | os.PathLike | Image.Image):
        raise ValueError(f"{function} takes a list of {of}; this is one {type(items).__name__}")
