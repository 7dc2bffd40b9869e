"""A gallery: features and facts of pictures, in a folder or in Milvus, asked by vectors."""

import abc
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from aima_jax.evaluation.posterior import Bank
from aima_jax.search.facts import Fact

MILVUS = "milvus:"
FORMAT = 1


class Stamp(NamedTuple):
    """Size in bytes and time of change in nanoseconds of a file when it was read."""

    size: int
    changed: int


class Known(NamedTuple):
    """What a gallery knows of a file: its stamp, and the row, or why it could not be read."""

    stamp: Stamp
    key: Any
    unreadable: str = ""


@dataclasses.dataclass(frozen=True)
class GalleryRows:
    """Pictures of a gallery.

    Attributes:
        names: paths in the folder, their parts joined by "/".
        features: L2-normalised.
        facts: of each picture, what is known by column.
        stamps: of the files, for rows to be written.
    """

    names: Sequence[str]
    features: Float[np.ndarray, "rows dim"]
    facts: Sequence[dict[str, Fact]]
    stamps: Sequence[Stamp] = ()


class Every(NamedTuple):
    """Of each picture: key, shares of agreeing and of other categories, products with vectors."""

    keys: Int64[np.ndarray, "gallery"]
    agreeing: Float[np.ndarray, "descriptions gallery"]
    others: Float[np.ndarray, "descriptions gallery"]
    products: Float[np.ndarray, "query gallery"]


class Gallery:
    """The gallery at a place.

    `Gallery(place)` is a `FolderGallery` or, where the place begins with "milvus:", a
    `MilvusGallery`: the same calls with the same results.

    Attributes:
        place: where it is.
        model_id: of the model that made the features.
        dim: of the features.
        folder: where the pictures are.

    Raises:
        FileNotFoundError: there is no gallery.
        ValueError: it is damaged, or something else.
    """

    place: str
    model_id: str
    dim: int
    folder: pathlib.Path

    def __new__(cls, place: str | os.PathLike[str], *_: Any, **__: Any) -> "Gallery":
        """The back end by the place."""
        return object.__new__(_back_end(place) if cls is Gallery else cls)

    @abc.abstractmethod
    def __init__(self, place: str | os.PathLike[str]):
        """Open it."""

    @classmethod
    def create(
        cls,
        place: str | os.PathLike[str],
        *,
        model_id: str,
        dim: int,
        folder: str,
        dtype: str,
    ) -> "Gallery":
        """Make an empty gallery where there is none.

        Args:
            place: its place, as `Gallery` takes it.
            model_id: of the model that will make the features.
            dim: of the features.
            folder: where the pictures are.
            dtype: of the features, float16 or float32.

        Raises:
            ValueError: something else is at the place, or it cannot have that dtype.
        """
        return _back_end(place).create(
            place, model_id=model_id, dim=dim, folder=folder, dtype=dtype
        )

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many pictures are in it."""

    @property
    @abc.abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns of facts that filters can name, `name` among them."""

    @abc.abstractmethod
    def nearest(
        self, vectors: Float[np.ndarray, "query dim"], k: int, where: str = ""
    ) -> tuple[Float[np.ndarray, "query k"], Shaped[np.ndarray, "query k"]]:
        """The k pictures of highest inner product with each vector, of those that a filter keeps.

        Args:
            vectors: of any length.
            k: all pictures if there are fewer.
            where: a filter on the facts (search/where.py); "" keeps all.

        Returns:
            Inner products, best first, and keys for `rows`.

        Raises:
            ValueError: the filter or a shape is wrong.
        """

    def every(
        self,
        bank: Bank,
        agreeing: Bool[np.ndarray, "category descriptions"],
        vectors: Float[np.ndarray, "query dim"],
        where: str = "",
    ) -> Every | None:
        """What each picture that a filter keeps has of descriptions and vectors, exactly.

        None where the gallery cannot say so in a moment: where it does not hold p(category | image)
        of all its pictures in memory.

        Args:
            bank: of the model that made the gallery.
            agreeing: which categories agree with each description.
            vectors: of any length.
            where: as of `nearest`.
        """
        return None

    @abc.abstractmethod
    def rows(self, keys: Iterable[Any]) -> GalleryRows:
        """The pictures of some keys."""

    @abc.abstractmethod
    def known(self) -> dict[str, Known]:
        """What the gallery knows, by the names of files."""

    @abc.abstractmethod
    def write(
        self,
        rows: GalleryRows,
        *,
        gone: Sequence[str] = (),
        unreadable: Sequence[tuple[str, Stamp, str]] = (),
        writer: str = "",
    ) -> None:
        """Add pictures, or replace those of the same names; all of it or nothing.

        Args:
            rows: the pictures.
            gone: names of pictures to remove.
            unreadable: files that could not be read, and why.
            writer: which of several hosts that write at the same time this is.

        Raises:
            OSError: it cannot be written.
        """

    @abc.abstractmethod
    def locked(self, writer: str) -> contextlib.AbstractContextManager[object]:
        """Keep the gallery for one process of a writer's name, as long as it writes.

        Raises:
            ValueError: another process of that name is writing.
        """

    def require_model(self, model_id: str) -> None:
        """Check that features of a model can be compared with those of the gallery.

        Raises:
            ValueError: another model made them.
        """
        if model_id != self.model_id:
            raise ValueError(
                f"the gallery {self.place} was made by another model (model_id "
                f"{self.model_id[:12]}…, not {model_id[:12]}…): name that model's run, or have "
                "this one make a gallery of its own with aima index"
            )


def _back_end(place: str | os.PathLike[str]) -> type[Gallery]:
    from aima_jax.search.folder_gallery import FolderGallery
    from aima_jax.search.milvus_gallery import MilvusGallery

    return MilvusGallery if os.fspath(place).startswith(MILVUS) else FolderGallery
