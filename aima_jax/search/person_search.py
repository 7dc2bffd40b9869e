"""A trained model that pictures can be searched with."""

import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from aima_jax.checkpoint import Restored
from aima_jax.convert import restore
from aima_jax.data.pictures import Source as Picture
from aima_jax.data.pictures import in_threads, open_picture, read_pixels
from aima_jax.evaluation.encoder import Encoder
from aima_jax.evaluation.report import draw_ranking
from aima_jax.evaluation.similarity import top_k
from aima_jax.parameters import flatten
from aima_jax.text import tokenize

Query = Mapping[str, Any] | str | Float[np.ndarray, "dim"]


class PersonSearch:
    """Encodes pictures, attributes and words, and ranks pictures by them.

    A query is a dict of attributes, of which any may be left out; a str; or a feature vector, for
    instance that of a picture. A str with an equals sign, and one that names nothing but flags of
    the schema, is taken as attributes ("gender=female,backpack"), any other as words.

    Features are L2-normalised, so that their product is the cosine similarity.
    """

    def __init__(self, restored: Restored):
        self.schema = restored.schema
        self.template = restored.template
        self.image_size = tuple(restored.config["image_size"])
        self.checkpoint = restored.path
        self.model_id = restored.model_id
        self.dim = restored.model.config.clip.dim
        self._encoder = Encoder(restored.model)
        self._params = flatten(restored.model)

    @classmethod
    def load(cls, run: str | os.PathLike[str]) -> "PersonSearch":
        """Load a run's best checkpoint, the one named, or an exported file; see `aima_jax.load`."""
        return cls(restore(run))

    def encode_images(self, images: Sequence[Picture]) -> Float[np.ndarray, "images dim"]:
        """Features of PIL images, arrays uint8[height, width, 3] or paths, of any size.

        Raises:
            FileNotFoundError: a path leads nowhere.
            ValueError: one is no picture, or damaged; names it.
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

    def rank(
        self, query: Query, image_features: Float[np.ndarray, "gallery dim"], k: int = 10
    ) -> list[tuple[int, float]]:
        """Index and cosine similarity of the `k` images that match a query best, best first.

        Args:
            query: attributes, words, or a feature vector.
            image_features: as `encode_images` returns them.
            k: all images if there are fewer.

        Raises:
            ValueError: the query is not of the schema, or a shape or `k` is not as expected.
        """
        shape = np.shape(image_features)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != self.dim:
            raise ValueError(
                f"image_features has the shape {list(shape)}; expected [images, {self.dim}], as "
                "encode_images returns it, of one image or more"
            )
        similarity, index = top_k(self._feature(query)[None], np.asarray(image_features), k)
        return [(int(i), float(s)) for i, s in zip(index[0], similarity[0], strict=True)]

    def show(self, query: Query, images: Sequence[Picture], k: int = 10) -> Image.Image:
        """Draws the query's sentence and the `k` images that match it best; raises as `rank`."""
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
        if isinstance(query, str):
            description = self.template.parse(query)
            if description is None:
                return query.strip()
            query = description
        return self.template.render(query).text if isinstance(query, Mapping) else ""

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

    def _feature(self, query: Query) -> Float[np.ndarray, "dim"]:
        if isinstance(query, Mapping | str):
            return self.encode_text([self.sentence(query)])[0]
        feature = np.asarray(query)
        if feature.shape != (self.dim,):
            raise ValueError(
                f"the query is {reprlib.repr(query)}; expected a dict of attributes, a str, or a "
                f"feature vector of {self.dim} numbers"
            )
        return feature / max(np.linalg.norm(feature), 1e-12)


def _require_list(items: Any, function: str, of: str) -> None:
    if isinstance(items, str | Mapping | os.PathLike | Image.Image):
        raise ValueError(f"{function} takes a list of {of}; this is one {type(items).__name__}")
