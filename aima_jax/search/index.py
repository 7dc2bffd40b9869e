"""Make or extend a gallery from the pictures of a folder."""

import argparse
import os
import pathlib
import re
import sys
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from aima_jax import cli
from aima_jax.data.pictures import SUFFIXES, in_threads, is_picture_name
from aima_jax.files import is_clutter, user_path
from aima_jax.search.facts import Fact, facts_of_name, read_facts
from aima_jax.search.gallery import Gallery, GalleryRows, Known, Stamp
from aima_jax.search.person_search import PersonSearch

ROWS_OF_A_PART = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `aima index` takes."""
    parser.add_argument("folder", help="folder with pictures, folders in it too")
    parser.add_argument("--workdir", required=True, help="a run, a checkpoint or an exported file")
    parser.add_argument("--out", required=True, help="folder of the gallery, made or extended")
    parser.add_argument("--metadata", help="CSV file with a column of names, and columns of facts")
    parser.add_argument("--part", default="1/1", help="3/16: the third of 16 that index together")
    parser.add_argument("--dtype", default="float32", help="float16 halves a new gallery's size")


def run(options: argparse.Namespace) -> None:
    """Index a folder, and say what is in the gallery.

    Raises:
        ValueError, FileNotFoundError: an option is wrong, or a file.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", options.part)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--part={options.part}; expected such as 3/16, the third of 16")
    facts = read_facts(options.metadata) if options.metadata else None
    gallery, left_out = index_folder(
        PersonSearch.load(options.workdir),
        options.folder,
        options.out,
        facts=facts,
        part=(int(found[1]) - 1, int(found[2])),
        dtype=options.dtype,
    )
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    columns = ", ".join(gallery.columns)
    print(f"{len(gallery)} pictures in {gallery.place}, of which it knows {columns}")


def index_folder(
    search: PersonSearch,
    folder: str | os.PathLike[str],
    place: str | os.PathLike[str],
    *,
    facts: Mapping[str, Mapping[str, Fact]] | None = None,
    part: tuple[int, int] = (0, 1),
    dtype: str = "float32",
    rows_of_a_part: int = ROWS_OF_A_PART,
) -> tuple[Gallery, list[str]]:
    """Bring a gallery up to the pictures in a folder and the folders in it.

    Pictures that are new or have changed are encoded; those that are gone are removed. The work is
    done in parts of the sorted names, each of which is kept once it is done: interrupted at any
    moment and started again, it ends with the same gallery to the last bit.

    Args:
        search: the model.
        folder: its pictures are the files with one of `data.pictures.SUFFIXES`.
        place: of the gallery, made if it is not there.
        facts: of pictures by name, over those that names say and those that the gallery has.
        part: which of how many processes this is: each has the names of its own.
        dtype: of a new gallery's features.
        rows_of_a_part: how much is lost at most by an interruption.

    Returns:
        The gallery, and a line for each reason for which files are left out, with their number and
        the first of them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no readable picture in it, another model made the gallery or it is of
            another folder, or it is damaged.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected one with pictures in it")
    stamps, left_out = _stamps(folder)
    gallery = _open_or_create(search, folder, place, dtype)
    number, count = part
    writer = f"{number + 1}of{count}" if count > 1 else ""
    with gallery.locked(writer):
        known = gallery.known()
        reasons = {name: each.unreadable for name, each in known.items() if name in stamps}
        changed = _changed(gallery, known, stamps, facts)
        own = [name for name in changed if zlib.crc32(os.fsencode(name)) % count == number]
        with tqdm(total=len(own), unit="image", disable=None) as progress:
            for start in range(0, len(own), rows_of_a_part):
                names = own[start : start + rows_of_a_part]
                present = {name: stamps[name] for name in names if name in stamps}
                rows, unreadable = _read(search, gallery, folder, present, known, facts, progress)
                reasons |= dict.fromkeys(rows.names, "")
                reasons |= {name: reason for name, _, reason in unreadable}
                gone = [name for name in names if name not in stamps]
                gallery.write(rows, gone=gone, unreadable=unreadable, writer=writer)
    if unreadable := [reason for _, reason in sorted(reasons.items()) if reason]:
        left_out.append(_counted("pictures that cannot be read", unreadable))
    if not len(gallery) and count == 1:
        raise ValueError(f"no readable picture in {folder}" + "".join(f"\n  {x}" for x in left_out))
    return gallery, left_out


def _open_or_create(
    search: PersonSearch, folder: pathlib.Path, place: str | os.PathLike[str], dtype: str
) -> Gallery:
    try:
        gallery = Gallery(place)
    except FileNotFoundError:
        return Gallery.create(
            place, model_id=search.model_id, dim=search.dim, folder=str(folder), dtype=dtype
        )
    gallery.require_model(search.model_id)
    if gallery.folder != folder:
        raise ValueError(
            f"the gallery {place} has the pictures of {gallery.folder}: index {folder} into another"
        )
    return gallery


def _changed(
    gallery: Gallery,
    known: Mapping[str, Known],
    stamps: Mapping[str, Stamp],
    facts: Mapping[str, Mapping[str, Fact]] | None,
) -> list[str]:
    """Names whose files, or facts, are not those that the gallery knows, in sorted order."""
    same = {name for name, stamp in stamps.items() if name in known and known[name].stamp == stamp}
    told = [name for name in facts or {} if name in same and known[name].key is not None]
    for start in range(0, len(told), ROWS_OF_A_PART):
        names = told[start : start + ROWS_OF_A_PART]
        rows = gallery.rows(known[name].key for name in names)
        for name, before in zip(names, rows.facts, strict=True):
            if facts and before != {**before, **facts[name]}:
                same.remove(name)
    return sorted((stamps.keys() | known.keys()) - same)


def _read(
    search: PersonSearch,
    gallery: Gallery,
    folder: pathlib.Path,
    stamps: Mapping[str, Stamp],
    known: Mapping[str, Known],
    facts: Mapping[str, Mapping[str, Fact]] | None,
    progress: tqdm,
) -> tuple[GalleryRows, list[tuple[str, Stamp, str]]]:
    """Rows of some pictures, and those that cannot be read; what is unchanged is not encoded."""
    before = [name for name in stamps if name in known and known[name].key is not None]
    had = gallery.rows(known[name].key for name in before)
    old_facts = dict(zip(before, had.facts, strict=True))
    features = {
        name: feature
        for name, feature in zip(before, had.features, strict=True)
        if known[name].stamp == stamps[name]
    }
    progress.update(len(features))
    new, readable, unreadable = [name for name in stamps if name not in features], [], []

    def read(name: str) -> UInt8[np.ndarray, "height width 3"] | Exception:
        try:
            return search.pixels(folder / name)
        except (ValueError, FileNotFoundError) as error:
            return error

    def pixels() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for name, result in zip(new, in_threads(read, new), strict=True):
            progress.update()
            if isinstance(result, Exception):
                unreadable.append((name, stamps[name], str(result)))
            else:
                readable.append(name)
                yield result

    for done, feature in enumerate(search.encode_pixels(pixels())):
        features[readable[done]] = feature
    names = [name for name in stamps if name in features]
    told = [
        facts_of_name(name) | old_facts.get(name, {}) | dict((facts or {}).get(name, {}))
        for name in names
    ]
    array = np.array([features[name] for name in names], np.float32).reshape(-1, search.dim)
    return GalleryRows(names, array, told, [stamps[name] for name in names]), unreadable


def _stamps(folder: pathlib.Path) -> tuple[dict[str, Stamp], list[str]]:
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
                stamps[name] = Stamp(stat.st_size, stat.st_mtime_ns)
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


if __name__ == "__main__":
    sys.exit(cli.main(["index", *sys.argv[1:]]))
