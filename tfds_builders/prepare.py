"""Prepares a dataset once: raw files in, checked ArrayRecord files with a manifest out.

    aima prepare market1501_attribute --manual_dir=… --data_dir=… [--check]

Exits with 2 where something is wrong with the files, and leaves nothing behind then.
"""

import argparse
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from aima_jax import cli
from tfds_builders import interruption, prepared
from tfds_builders.layout import require_folder

if TYPE_CHECKING:
    from tfds_builders.records import PersonSearchBuilder

# Each folder with a builder is a dataset.
DATASETS = tuple(
    sorted(path.parent.name for path in pathlib.Path(__file__).parent.glob("*/builder.py"))
)

_HOME = pathlib.Path("~/tensorflow_datasets")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_Place = str | os.PathLike | None


def prepare(
    dataset: str,
    *,
    manual_dir: _Place = None,
    data_dir: _Place = None,
) -> pathlib.Path:
    """Returns the folder of a prepared dataset, and prepares it where it is not there yet.

    The folder appears at once when everything is in it. A second process that prepares the same
    dataset meanwhile waits, and finds it.

    Args:
        dataset: as "pa100k", or with a builder's config, as "peta/random1".
        manual_dir: where the raw files lie; ~/tensorflow_datasets/downloads/manual by default.
        data_dir: where prepared datasets go; ~/tensorflow_datasets by default.

    Raises:
        FileNotFoundError, ValueError: the raw files, or a folder prepared earlier, are not what
            they should be; or no such dataset is known.
        OSError: the disk is full.
    """
    folder = find(dataset, data_dir=data_dir)
    if folder is not None:
        return folder
    folder = _folder(dataset, data_dir)
    manual_dir = pathlib.Path(manual_dir or _HOME / "downloads" / "manual").expanduser()
    instructions = _builder(dataset)[0].MANUAL_DOWNLOAD_INSTRUCTIONS
    if instructions:
        require_folder(manual_dir, instructions)
    try:
        with interruption.noticed(), _workplace(folder) as place:
            if not folder.exists():
                made = _build(dataset, place, manual_dir)
                interruption.check()
                folder.parent.mkdir(parents=True, exist_ok=True)
                made.rename(folder)
    except (OSError, RuntimeError) as error:
        # ArrayRecord's writer knows only RuntimeError.
        if any(os.strerror(code) in str(error) for code in _NO_SPACE):
            raise OSError(
                f"{folder}: {dataset} could not be prepared, the disk is full ({error}). Make "
                "room there, or choose another data_dir; nothing was left behind"
            ) from error
        raise
    prepared.read_manifest(folder)
    return folder


def find(dataset: str, *, data_dir: _Place = None) -> pathlib.Path | None:
    """Returns the folder of a prepared dataset, None where there is none.

    Raises:
        ValueError: the folder is there, but its manifest is missing or damaged; or no such dataset
            is known.
    """
    folder = _folder(dataset, data_dir)
    if not folder.exists():
        return None
    prepared.read_manifest(folder)
    return folder


def require(dataset: str, *, data_dir: _Place = None) -> pathlib.Path:
    """Returns the folder of a prepared dataset; as `find`, but FileNotFoundError for none."""
    folder = find(dataset, data_dir=data_dir)
    if folder is None:
        raise FileNotFoundError(
            f"{_folder(dataset, data_dir)}: {dataset} is not prepared there; run aima "
            f"prepare {dataset}, or give its --data_dir"
        )
    return folder


def check(dataset: str, *, data_dir: _Place = None) -> dict[str, Any]:
    """Verifies a prepared dataset against its counts and checksums, and returns its manifest.

    Raises:
        FileNotFoundError: it is not prepared.
        ValueError: naming every file that is damaged or missing.
    """
    return prepared.verify(require(dataset, data_dir=data_dir))


def _builder(dataset: str) -> tuple[type["PersonSearchBuilder"], str]:
    """The builder's class, and its config's name."""
    import tensorflow_datasets as tfds

    name, _, config = dataset.partition("/")
    if name not in DATASETS:
        raise ValueError(f"dataset {dataset!r} is unknown; expected one of {', '.join(DATASETS)}")
    importlib.import_module(f"tfds_builders.{name}")
    builder = tfds.builder_cls(name)
    return builder, builder.config_name(config)


def _folder(dataset: str, data_dir: _Place) -> pathlib.Path:
    """Where TFDS keeps the dataset, prepared or not."""
    builder, config = _builder(dataset)
    data_dir = pathlib.Path(data_dir or _HOME).expanduser()
    return data_dir / builder.name / config / str(builder.VERSION)


@contextlib.contextmanager
def _workplace(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder on the disk of `folder`, of this process alone, and gone afterwards."""
    place = folder.parent / f".{folder.name}.preparing"
    created = [parent for parent in place.parents if not parent.exists()]
    lock = _lock(place)
    try:
        # What a killed process left.
        for path in place.iterdir():
            shutil.rmtree(path)
        yield place
    finally:
        shutil.rmtree(place)
        os.close(lock)
        for parent in created:
            with contextlib.suppress(OSError):  # it holds the dataset, or another's files
                parent.rmdir()


def _lock(place: pathlib.Path) -> int:
    """Locks a folder that is made for it; the lock goes when the process does."""
    while True:
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = os.open(place, os.O_RDONLY)
        except FileNotFoundError:  # whoever had it removes it just now
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares {place.parent}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Whoever had the lock before has removed the folder by now, unless it was killed.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), place.stat()):
                return lock
        os.close(lock)


def _build(dataset: str, place: pathlib.Path, manual_dir: pathlib.Path) -> pathlib.Path:
    """Writes the complete dataset below `place`, and returns its folder there."""
    import tensorflow_datasets as tfds

    builder_class, config = _builder(dataset)
    builder = builder_class(config=config or None, data_dir=place, file_format="array_record")
    # TFDS tells of downloads and of the temporary folder.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    folder = pathlib.Path(builder.data_path)
    counts, contents = {}, {}
    for split in builder.info.splits:
        labels, contents[split] = _stored(builder, split)
        counts[split] = len(labels["filename"])
        prepared.write_labels(folder, split, labels)
    prepared.write_manifest(
        folder,
        dataset=f"{builder.name}/{config}" if config else builder.name,
        schema=builder.schema.to_dict(),
        wording=builder.wording.to_dict(),
        traits=dataclasses.asdict(builder.traits),
        counts=counts,
        contents=contents,
    )
    return folder


def _stored(builder: Any, split: str) -> tuple[prepared.Labels, str]:
    """Reads the records back: their labels, which thus cannot disagree, and what they amount to."""
    import tensorflow_datasets as tfds

    names = ("attributes", "identity", "camera", "filename")
    columns = {name: [] for name in names}
    digest = hashlib.sha256()
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    for record in interruption.checked(source):
        for name in names:
            columns[name].append(record[name])
        digest.update(hashlib.sha256(record["image"]).digest())
    labels = {
        "attributes": np.stack(columns["attributes"]),
        "identity": np.array(columns["identity"], np.int32),
        "camera": np.array(columns["camera"], np.int32),
        "filename": np.array([name.decode() for name in columns["filename"]]),
    }
    for column in labels.values():
        digest.update(column.tobytes())
    return labels, digest.hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `aima prepare` takes."""
    parser.add_argument("dataset", help=f"one of {', '.join(DATASETS)}, or as peta/random1")
    parser.add_argument("--manual_dir", help="the raw files; TFDS's manual folder by default")
    parser.add_argument("--data_dir", help="the prepared ones; ~/tensorflow_datasets by default")
    parser.add_argument("--check", action="store_true", help="verify a prepared dataset")


def run(options: argparse.Namespace) -> None:
    """Prepare or check a dataset, and print how many pictures it has.

    Raises:
        ValueError, OSError: as `prepare` and `check`.
    """
    try:
        if options.check:
            manifest = check(options.dataset, data_dir=options.data_dir)
        else:
            places = {"manual_dir": options.manual_dir, "data_dir": options.data_dir}
            manifest = prepared.read_manifest(prepare(options.dataset, **places))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; nothing was left behind") from None
    counts = ", ".join(f"{split} {count:,}" for split, count in manifest["counts"].items())
    print(f"{manifest['dataset']} {'is sound' if options.check else 'is prepared'}: {counts}")


if __name__ == "__main__":
    sys.exit(cli.main(["prepare", *sys.argv[1:]]))
