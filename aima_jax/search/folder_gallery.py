"""A gallery in a folder: numbered parts of arrays that can be mapped into memory.

    GALLERY/gallery.json          format, model_id, dim, dtype, folder
    GALLERY/parts/000000/         name.npy, stamps.npy, features.npy, facts/<column>.npy, part.json

A part is written elsewhere and renamed: it is complete or absent, and never changes. A picture that
is replaced or removed is named in the `replaces` of a later part.
"""

import contextlib
import functools
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from aima_jax.evaluation.posterior import Bank
from aima_jax.evaluation.similarity import GalleryFeatures, room
from aima_jax.files import (
    checksums,
    compare,
    read_sealed_json,
    user_path,
    write_sealed_json,
)
from aima_jax.locking import locked
from aima_jax.search.facts import columns_of, facts_of
from aima_jax.search.gallery import FORMAT, Every, Gallery, GalleryRows, Known, Stamp
from aima_jax.search.where import matching, parse_where, require_columns

DTYPES = ("float32", "float16")
_AT_ONCE = 8192  # images whose shares are computed
_HEADER, _PART = "gallery.json", "part.json"


class FolderGallery(Gallery):
    """A gallery in a folder; see `Gallery`.

    The features stay on the devices between queries if they fit there; if not, they are read from
    the disk's memory maps for each group of queries.
    """

    def __init__(self, place: str | os.PathLike[str]):
        path = user_path(place)
        if not path.is_dir() or not (path / _HEADER).exists():
            raise FileNotFoundError(
                f"there is no gallery {path}; make one with aima index FOLDER --workdir=RUN "
                f"--out={path}"
            )
        header = read_sealed_json(path / _HEADER)
        if header["format"] != FORMAT:
            raise ValueError(
                f"the gallery {path} is of format {header['format']}, not {FORMAT}: index its "
                "pictures again, into another folder"
            )
        self.place, self._path = str(path), path
        self.model_id, self.dim = header["model_id"], header["dim"]
        self.folder, self._dtype = pathlib.Path(header["folder"]), header["dtype"]
        self._parts: list[_Part] = []
        self._forget()
        for folder in sorted((path / "parts").glob("[0-9]*")):
            self._add(_Part(folder))

    @classmethod
    def create(
        cls,
        place: str | os.PathLike[str],
        *,
        model_id: str,
        dim: int,
        folder: str,
        dtype: str,
    ) -> "FolderGallery":
        path = user_path(place)
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}; expected {' or '.join(DTYPES)}")
        if path.exists() and not (path.is_dir() and set(os.listdir(path)) <= {_HEADER, "parts"}):
            raise ValueError(f"{path} is not a gallery: remove it, or name another folder")
        (path / "parts").mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "model_id": model_id, "dim": dim, "dtype": dtype}
        # Several hosts may write this at once, and the same.
        write_sealed_json(path / _HEADER, header | {"folder": folder}, shared=True)
        return cls(path)

    def __len__(self) -> int:
        return int(sum(np.count_nonzero(part.live) for part in self._parts))

    @property
    def columns(self) -> tuple[str, ...]:
        return ("name", *sorted({column for part in self._parts for column in part.facts}))

    def nearest(
        self, vectors: Float[np.ndarray, "query dim"], k: int, where: str = ""
    ) -> tuple[Float[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
        kept = self._kept(where)
        if not len(kept):
            nothing = np.empty((len(vectors), 0))
            return nothing.astype(np.float32), nothing.astype(np.int64)
        return self._placed.first(vectors, k, kept)

    def every(
        self,
        bank: Bank,
        agreeing: Bool[np.ndarray, "category descriptions"],
        vectors: Float[np.ndarray, "query dim"],
        where: str = "",
    ) -> Every | None:
        kept = self._kept(where)
        if 4 * len(kept) * (self.dim + len(agreeing)) > room() or not len(kept):
            return None
        if self._shares is None:
            stacked = _Stacked([part.features for part in self._parts])
            starts = range(0, len(kept), _AT_ONCE)
            parts = [bank.shares(stacked[start : start + _AT_ONCE]) for start in starts]
            self._shares = GalleryFeatures(np.concatenate(parts))
        keys = np.flatnonzero(kept)
        sides = np.concatenate([agreeing, ~agreeing], axis=1).T.astype(np.float32)
        shares = _products(self._shares, sides)[:, keys]
        products = _products(self._placed, vectors)[:, keys] if len(vectors) else shares[:0]
        descriptions = agreeing.shape[1]
        return Every(keys, shares[:descriptions], shares[descriptions:], products)

    def rows(self, keys: Iterable[Any]) -> GalleryRows:
        keys = np.asarray(list(keys), np.int64)
        places = np.searchsorted(self._ends, keys, side="right")
        inside = keys - np.concatenate([[0], self._ends])[places]
        found = [(self._parts[part], row) for part, row in zip(places, inside, strict=True)]
        return GalleryRows(
            [str(part.names[row]) for part, row in found],
            np.array([part.features[row] for part, row in found], np.float32).reshape(-1, self.dim),
            [facts_of(part.facts, row) for part, row in found],
            [Stamp(*part.stamps[row].tolist()) for part, row in found],
        )

    def known(self) -> dict[str, Known]:
        known, start = {}, 0
        for part in self._parts:
            for name in part.replaces:
                known.pop(name, None)
            stamps = map(Stamp._make, part.stamps.tolist())
            for row, (name, stamp) in enumerate(zip(part.names.tolist(), stamps, strict=True)):
                if part.live[row]:
                    known[name] = Known(stamp, start + row)
            for name, stamp, reason in part.unreadable:
                known[name] = Known(Stamp(*stamp), None, reason)
            start += len(part.names)
        return known

    def write(
        self,
        rows: GalleryRows,
        *,
        gone: Sequence[str] = (),
        unreadable: Sequence[tuple[str, Stamp, str]] = (),
        writer: str = "",
    ) -> None:
        number = 1 + max((int(part.path.name[:6]) for part in self._parts), default=-1)
        name = f"{number:06}.{writer}" if writer else f"{number:06}"
        final, temporary = self._path / "parts" / name, self._path / "parts" / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "facts").mkdir(parents=True)
        names = {*rows.names, *(name for name, *_ in unreadable)}
        features = np.asarray(rows.features, self._dtype).reshape(-1, self.dim)
        arrays = {
            "name": np.array(rows.names, np.str_),
            "stamps": np.array(rows.stamps, np.int64).reshape(-1, 2),
            "features": features,
        }
        arrays |= {f"facts/{column}": a for column, a in columns_of(rows.facts).items()}
        for array_name, array in arrays.items():
            with (temporary / f"{array_name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        content = {
            "rows": len(features),
            "replaces": sorted({*gone, *names} & self._names),
            "unreadable": [[name, list(stamp), reason] for name, stamp, reason in unreadable],
            "files": checksums(temporary, leave_out=_PART),
        }
        write_sealed_json(temporary / _PART, content)
        temporary.rename(final)
        self._add(_Part(final))
        self._forget()
        self._names.difference_update(gone)
        self._names.update(names)

    def locked(self, writer: str) -> contextlib.AbstractContextManager[object]:
        folder = self._path / "parts" / f".writing{writer and '.' + writer}"
        folder.mkdir(exist_ok=True)
        return locked(folder)

    @functools.cached_property
    def _names(self) -> set[str]:
        """All that parts have, or could not read."""
        return {*self.known()}

    def _add(self, part: "_Part") -> None:
        if part.features.shape[1:] != (self.dim,) or part.features.dtype != self._dtype:
            raise ValueError(
                f"{part.path} has features {part.features.dtype}{list(part.features.shape)}; "
                f"expected {self._dtype}[rows, {self.dim}], as {_HEADER} says"
            )
        if part.replaces:
            for earlier in self._parts:
                earlier.live &= ~np.isin(earlier.names, part.replaces)
        self._parts.append(part)

    def _forget(self) -> None:
        """Drop what was computed of the parts as they were."""
        self.__dict__.pop("_placed", None)
        self._shares: GalleryFeatures | None = None
        self._kept_by: dict[str, np.ndarray] = {}
        self.__dict__.pop("_ends", None)

    @functools.cached_property
    def _placed(self) -> GalleryFeatures:
        """The features, on the devices where they fit."""
        features: Any = _Stacked([part.features for part in self._parts])
        return GalleryFeatures(features)

    @functools.cached_property
    def _ends(self) -> Int64[np.ndarray, "parts"]:
        """The first row after each part."""
        return np.cumsum([len(part.names) for part in self._parts], dtype=np.int64)

    def _kept(self, where: str) -> Bool[np.ndarray, "gallery"]:
        """Which rows count: neither replaced, nor filtered out. The last filters are kept."""
        if where not in self._kept_by:
            kept = np.concatenate([np.empty(0, bool), *(part.live for part in self._parts)])
            if where:
                tree = parse_where(where)
                named = require_columns(tree, self.columns)
                kept &= matching(tree, {column: self._column(column) for column in named})
            if len(self._kept_by) > 8:
                self._kept_by.clear()
            self._kept_by[where] = kept
        return self._kept_by[where]

    def _column(self, column: str) -> Shaped[np.ndarray, "gallery"]:
        if column == "name":
            return np.concatenate([part.names for part in self._parts])
        kinds = {part.facts[column].dtype.kind for part in self._parts if column in part.facts}
        missing = "" if "U" in kinds else np.nan
        return np.concatenate(
            [part.facts.get(column, np.full(len(part.names), missing)) for part in self._parts]
        )


def _products(
    gallery: GalleryFeatures, vectors: Float[np.ndarray, "query width"]
) -> Float[np.ndarray, "query gallery"]:
    return np.concatenate([rows for _, rows in gallery.similarities(vectors)])


class _Part:
    """GalleryRows that were written together.

    Raises:
        ValueError: a file is missing or has changed.
    """

    def __init__(self, path: pathlib.Path):
        said = read_sealed_json(path / _PART)
        if problems := compare(path, said["files"], leave_out=_PART):
            raise ValueError(
                f"the gallery's part {path} is damaged: {'; '.join(problems)}. Remove this part's "
                "folder, and aima index makes what it held anew"
            )
        self.path = path
        self.replaces: list[str] = said["replaces"]
        self.unreadable: list[tuple[str, list[int], str]] = said["unreadable"]
        self.names = self._map("name")
        self.stamps = self._map("stamps")
        self.features = self._map("features")
        columns = [name for name in said["files"] if name.startswith("facts/")]
        self.facts = {pathlib.Path(x).stem: self._map(x.removesuffix(".npy")) for x in columns}
        self.live = np.ones(len(self.names), bool)

    def _map(self, name: str) -> np.ndarray:
        path = self.path / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an array without elements cannot be mapped
            return np.load(path, allow_pickle=False)


class _Stacked:
    """Arrays one below the other, of which slices are read."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])
        self.shape = (int(self._starts[-1]), *arrays[0].shape[1:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        first = max(int(np.searchsorted(self._starts, start, side="right")) - 1, 0)
        parts = []
        for array, offset in zip(self._arrays[first:], self._starts[first:], strict=False):
            if offset >= stop:
                break
            parts.append(array[max(start - offset, 0) : stop - offset])
        return np.concatenate([self._arrays[0][:0], *parts])
