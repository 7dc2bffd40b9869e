"""A folder of pictures and their features, which a file can keep for the next search."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64, Shaped, UInt8
from tqdm import tqdm

from aima_jax.data.pictures import SUFFIXES, in_threads, is_picture_name
from aima_jax.files import atomic_write, is_clutter, user_path
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
        """Read a file that `write` wrote.

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
                f"{path} is not an index of a gallery, or damaged ({error}); "
                "remove it to have it made anew, or name another file"
            ) from error
        return gallery

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file that is complete or absent, whatever happens meanwhile."""
        with (
            atomic_write(pathlib.Path(path), shared=True) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **vars(self))


_ARRAYS = ("names", "stamps", "features")


def index_folder(
    search: PersonSearch,
    folder: str | os.PathLike[str],
    *,
    index: str | os.PathLike[str] | None = None,
) -> tuple[IndexedFolder, list[str]]:
    """Encode every picture in a folder and the folders in it, with a progress bar on a terminal.

    Args:
        search: the model.
        folder: its pictures are the files with one of `data.pictures.SUFFIXES`.
        index: a file that keeps the features: those that it has of the same model and of unchanged
            pictures are not computed again, and what was computed is kept even if interrupted.

    Returns:
        The gallery, and a line for each reason for which files are left out, with their number and
        the first of them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no readable picture in it, or the index is something else.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected one with pictures in it")
    model = search.model_id
    stamps, left_out = _stamps(folder)
    known = _known(index, model)
    features = {name: row for name, (stamp, row) in known.items() if stamps.get(name) == stamp}
    new = [name for name in stamps if name not in features]
    readable, unreadable = [], []

    def read(name: str) -> UInt8[np.ndarray, "height width 3"] | Exception:
        try:
            return search.pixels(folder / name)
        except (ValueError, FileNotFoundError) as error:
            return error

    def pixels() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        results = zip(new, in_threads(read, new), strict=True)
        for name, result in tqdm(results, total=len(new), unit="image", disable=None):
            if isinstance(result, Exception):
                unreadable.append(str(result))
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
    if unreadable:
        left_out.append(_counted("pictures that cannot be read", unreadable))
    if not names:
        raise ValueError(f"no readable picture in {folder}" + "".join(f"\n  {x}" for x in left_out))
    return indexed, left_out


def _stamps(folder: pathlib.Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Size and time of change of each picture in a folder, by its path there, in sorted order.

    Also returns a line for each reason for which other files are left out. Links are followed, but
    no folder is entered twice.
    """
    stamps, entered = {}, set()
    others, again, broken, closed = [], [], [], []
    walk = os.walk(folder, followlinks=True, onerror=lambda error: closed.append(str(error)))
    for place, inner, files in walk:
        below = pathlib.Path(place).relative_to(folder)
        facts = os.stat(place)
        if (facts.st_dev, facts.st_ino) in entered:
            again.append(below.as_posix())
            inner.clear()
            continue
        entered.add((facts.st_dev, facts.st_ino))
        inner[:] = (name for name in inner if not is_clutter(name))
        inner.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        for file in filter(lambda file: not is_clutter(file), files):
            path, name = pathlib.Path(place, file), (below / file).as_posix()
            if not path.exists():
                broken.append(name)
            elif is_picture_name(file) and path.is_file():
                stat = path.stat()
                stamps[name] = (stat.st_size, stat.st_mtime_ns)
            else:
                others.append(name)
    reasons = {
        f"files that do not end in {', '.join(SUFFIXES)}": others,
        "links that lead nowhere": broken,
        "links to folders that are in it already": again,
        "folders that cannot be opened": closed,
    }
    left_out = [_counted(reason, sorted(names)) for reason, names in reasons.items() if names]
    if not stamps:
        raise ValueError(
            f"no picture in {folder}; expected files with {', '.join(SUFFIXES)}"
            + "".join(f"\n  left out: {line}" for line in left_out)
        )
    return {name: stamps[name] for name in sorted(stamps)}, left_out


def _counted(reason: str, names: list[str], shown: int = 5) -> str:
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return f"{reason}: {len(names)} ({', '.join(names[:shown])}{more})"


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
