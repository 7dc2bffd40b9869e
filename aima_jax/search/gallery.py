"""A folder of pictures and their features, which a file can keep for the next search."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64, Shaped, UInt8
from tqdm import tqdm

from aima_jax.data.pictures import SUFFIXES, in_threads, is_picture_name
from aima_jax.files import atomic_write, user_path
from aima_jax.search.person_search import PersonSearch


@dataclasses.dataclass(frozen=True)
class IndexedFolder:
    """Features of the pictures of a folder, in the order of their names.

    Attributes:
        model: `model_id` of the model that made the features.
        names: paths in the folder, their parts joined by "/".
        stamps: size in bytes and time of change in nanoseconds of each file when it was read.
        features: as `PersonSearch.encode_images` returns them.
    """

    model: str
    names: Shaped[np.ndarray, "gallery"]
    stamps: Int64[np.ndarray, "gallery 2"]
    features: Float[np.ndarray, "gallery dim"]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "IndexedFolder":
        """Reads a file that `write` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else, or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                gallery = cls(str(file["model"]), *(file[name] for name in _ARRAYS))
            shapes = [getattr(gallery, name).shape for name in _ARRAYS]
            count, dim = shapes[-1]
            if shapes != [(count,), (count, 2), (count, dim)]:
                raise ValueError(f"shapes {shapes}")
        except FileNotFoundError:
            raise FileNotFoundError(f"no index {path}") from None
        except Exception as error:  # of zip, zlib, numpy or ours, by what is wrong with the file
            raise ValueError(
                f"{path} is no index of a gallery, or damaged ({error}); "
                "remove it to have it made anew, or name another file"
            ) from error
        return gallery

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz file that is complete or absent, whatever happens meanwhile."""
        with atomic_write(pathlib.Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(self))


_ARRAYS = ("names", "stamps", "features")


def index_folder(
    search: PersonSearch,
    folder: str | os.PathLike[str],
    *,
    index: str | os.PathLike[str] | None = None,
) -> tuple[IndexedFolder, list[str]]:
    """Encodes every picture in a folder and the folders in it, with a progress bar on a terminal.

    Args:
        search: the model.
        folder: its pictures are the files with one of `data.pictures.SUFFIXES`.
        index: a file that keeps the features: those that it has of the same model and of unchanged
            pictures are not computed again, and what was computed is kept even if interrupted.

    Returns:
        The gallery, and a message for each picture that could not be read and is left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no readable picture in it, or the index is something else.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected one with pictures in it")
    model = search.model_id
    stamps = _stamps(folder)
    known = _known(index, model)
    features = {name: row for name, (stamp, row) in known.items() if stamps.get(name) == stamp}
    new = [name for name in stamps if name not in features]
    readable, problems = [], []

    def read(name: str) -> UInt8[np.ndarray, "height width 3"] | Exception:
        try:
            return search.pixels(folder / name)
        except (ValueError, FileNotFoundError) as error:
            return error

    def pixels() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        results = zip(new, in_threads(read, new), strict=True)
        for name, result in tqdm(results, total=len(new), unit="image", disable=None):
            if isinstance(result, Exception):
                problems.append(str(result))
            else:
                readable.append(name)
                yield result

    try:
        for done, row in enumerate(search.encode_pixels(pixels())):
            features[readable[done]] = row
    finally:
        names = [name for name in stamps if name in features]
        indexed = IndexedFolder(
            model,
            np.array(names, np.str_),
            np.array([stamps[name] for name in names], np.int64).reshape(-1, 2),
            np.array([features[name] for name in names], np.float32).reshape(-1, search.dim),
        )
        if index is not None and (readable or len(names) != len(known)):
            indexed.write(index)
    if not names:
        raise ValueError(f"no readable picture in {folder}" + "".join(f"\n  {p}" for p in problems))
    return indexed, problems


def _stamps(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each picture in a folder, by its path there, in sorted order."""
    files = (path for path in folder.rglob("*") if path.is_file())
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    stats = {name: stat for name, stat in stats.items() if is_picture_name(name)}
    if not stats:
        raise ValueError(f"no picture in {folder}; expected files with {', '.join(SUFFIXES)}")
    return {name: (stats[name].st_size, stats[name].st_mtime_ns) for name in sorted(stats)}


def _known(
    index: str | os.PathLike[str] | None, model: str
) -> dict[str, tuple[tuple[int, int], Float[np.ndarray, "dim"]]]:
    """Stamp and features of each picture that an index has from a model."""
    if index is None or not pathlib.Path(index).exists():
        return {}
    indexed = IndexedFolder.read(index)
    if indexed.model != model:
        return {}
    stamps = map(tuple, indexed.stamps.tolist())
    pairs = zip(stamps, indexed.features, strict=True)
    return dict(zip(indexed.names.tolist(), pairs, strict=True))
