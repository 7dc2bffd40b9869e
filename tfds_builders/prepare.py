"""Prepare a dataset once: raw files in, checked ArrayRecord files with a manifest out.

    aima prepare market1501_attribute --manual_dir=… --data_dir=… [--check]

Nothing is left behind if the files are invalid or the command is interrupted.
"""

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import importlib
import io
import os
import pathlib
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from aima_jax import cli
from aima_jax.data import prepared
from aima_jax.files import read_sealed_json, user_path
from aima_jax.locking import boot_id, is_alive
from tfds_builders import ctrl_c
from tfds_builders.layout import require_folder

if TYPE_CHECKING:
    from tfds_builders.records import PersonSearchBuilder

# Each folder with a builder is a dataset.
DATASETS = tuple(
    sorted(path.parent.name for path in pathlib.Path(__file__).parent.glob("*/builder.py"))
)

_HOME = "~/tensorflow_datasets"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ABANDONED_SECONDS = 24 * 60 * 60

_Place = str | os.PathLike[str] | None


def prepare(dataset: str, *, manual_dir: _Place = None, data_dir: _Place = None) -> pathlib.Path:
    """Return the folder of a prepared dataset, preparing it first if necessary.

    The folder appears atomically, once it is complete. If several processes prepare the same
    dataset at a time, on any hosts, the first to finish provides it.

    Args:
        dataset: such as "pa100k", or with a builder's config "peta/random1".
        manual_dir: where the raw files are; downloads/manual in TFDS's folder by default.
        data_dir: where prepared datasets go; TFDS's folder by default, which is TFDS_DATA_DIR or
            ~/tensorflow_datasets.

    Raises:
        FileNotFoundError, ValueError: the raw files or an existing prepared folder are invalid, or
            do not match; or the dataset is unknown.
        OSError: the disk is full.
    """
    folder = find(dataset, data_dir=data_dir)
    if folder is not None:
        _require_same_sources(folder, dataset, manual_dir, data_dir)
        return folder
    folder = _folder(dataset, data_dir)
    instructions = _builder(dataset)[0].MANUAL_DOWNLOAD_INSTRUCTIONS
    raw = None
    if instructions:
        raw = _raw_files(manual_dir)
        require_folder(raw, instructions)
    try:
        with ctrl_c.noticed(), _workplace(folder) as place:
            made = _build(dataset, place, raw)
            ctrl_c.raise_lost()
            _move(made, folder)
    except (OSError, RuntimeError) as error:
        # ArrayRecord's writer raises only RuntimeError.
        if any(os.strerror(code) in str(error) for code in _NO_SPACE):
            raise OSError(
                f"{folder}: {dataset} could not be prepared: the disk is full ({error}). Free "
                "space there, or choose another data_dir; nothing was left behind"
            ) from error
        raise
    prepared.read_manifest(folder)
    return folder


def _require_same_sources(
    folder: pathlib.Path, dataset: str, manual_dir: _Place, data_dir: _Place
) -> None:
    """Check the source files whose checksums the dataset stores.

    Raises:
        ValueError: a file has changed.
    """
    for name, checksum in prepared.read_manifest(folder).get("sources", {}).items():
        path = _raw_files(manual_dir) / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            words = ["aima", "prepare", dataset, f"--manual_dir={path.parent}"]
            words += [f"--data_dir={data_dir}"] if data_dir else []
            raise ValueError(
                f"{path} has changed since {dataset} was prepared from it; prepare it again with: "
                f"rm -r {shlex.quote(str(folder))} && {shlex.join(words)}"
            )


def find(dataset: str, *, data_dir: _Place = None) -> pathlib.Path | None:
    """Return the folder of a prepared dataset, None if there is none.

    Raises:
        ValueError: the folder exists, but its manifest is missing, damaged or of another format;
            or the dataset is unknown.
    """
    folder = _folder(dataset, data_dir)
    if not folder.exists():
        return None
    prepared.read_manifest(folder)
    return folder


def require(dataset: str, *, data_dir: _Place = None) -> pathlib.Path:
    """Return the folder of a prepared dataset.

    Raises:
        FileNotFoundError: it is not prepared.
        ValueError: as `find`.
    """
    folder = find(dataset, data_dir=data_dir)
    if folder is None:
        raise FileNotFoundError(
            f"{_folder(dataset, data_dir)}: {dataset} is not prepared there; run aima "
            f"prepare {dataset}, or set --data_dir"
        )
    return folder


def check(dataset: str, *, data_dir: _Place = None) -> dict[str, Any]:
    """Verify a prepared dataset against its counts and checksums, and return its manifest.

    Raises:
        FileNotFoundError: it is not prepared.
        ValueError: files are damaged or missing; the message names each.
    """
    return prepared.read_verified(require(dataset, data_dir=data_dir))


def renew_manifest(dataset: str, *, data_dir: _Place = None) -> None:
    """Rewrite the manifest of a dataset prepared by an earlier version; records are unchanged.

    Raises:
        ValueError: a file is damaged or missing, or the dataset's attributes have changed.
    """
    folder = _folder(dataset, data_dir)
    try:
        if "format" in read_sealed_json(folder / prepared.MANIFEST):
            return
    except (FileNotFoundError, ValueError):
        return  # `find` reports what is wrong
    manifest = prepared.read_verified(folder, version=1)
    builder_class, config = _builder(dataset)
    builder = builder_class(config=config or None, data_dir=folder)
    if manifest["schema"] != builder.schema.to_dict():
        raise ValueError(
            f"{folder} was prepared by an earlier version, with other attributes: move the folder "
            "away, or set another --data_dir, and prepare the dataset again"
        )
    _write_manifest(folder, builder, config, manifest["counts"], manifest["contents"])


def common_pictures(trained: str, asked: str) -> bool:
    """Return whether the test split of one dataset may contain training pictures of another."""
    if trained.partition("/")[0] not in DATASETS:
        return False
    (builder, config), (other, other_config) = _builder(trained), _builder(asked)
    if builder is other and builder.one_division:
        return False
    return not builder.pictures(config, "train").isdisjoint(other.pictures(other_config, "test"))


def _builder(dataset: str) -> tuple[type["PersonSearchBuilder"], str]:
    """The builder's class, and its config's name."""
    import tensorflow_datasets as tfds

    name, _, config = dataset.partition("/")
    if name not in DATASETS:
        raise ValueError(f"dataset {dataset!r} is unknown; expected one of {', '.join(DATASETS)}")
    importlib.import_module(f"tfds_builders.{name}.builder")
    builder: Any = tfds.builder_cls(name)
    return builder, builder.config_name(config)


def _folder(dataset: str, data_dir: _Place) -> pathlib.Path:
    """The folder where TFDS keeps the dataset, prepared or not."""
    builder, config = _builder(dataset)
    data_dir = user_path(data_dir or _tfds_folder())
    return data_dir / builder.name / config / str(builder.VERSION)


def _raw_files(manual_dir: _Place) -> pathlib.Path:
    return user_path(manual_dir or _tfds_folder() / "downloads" / "manual")


def _tfds_folder() -> pathlib.Path:
    return user_path(os.environ.get("TFDS_DATA_DIR") or _HOME)


@contextlib.contextmanager
def _workplace(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty temporary folder on the disk of `folder`, private to this process."""
    beside = folder.parent
    created = [parent for parent in (beside, *beside.parents) if not parent.exists()]
    prefix = f".{folder.name}.preparing-"
    while True:
        try:
            beside.mkdir(parents=True, exist_ok=True)
            others = _remove_abandoned(beside, prefix)
            place = tempfile.mkdtemp(prefix=f"{prefix}{_system()}-{os.getpid()}-", dir=beside)
            break
        except FileNotFoundError:  # a concurrent process is removing its own copy
            continue
    if others:
        print(f"another process is preparing {folder} too; the first one wins", file=sys.stderr)
    try:
        yield pathlib.Path(place)
    finally:
        shutil.rmtree(place)
        for parent in created:
            with contextlib.suppress(OSError):  # it contains the dataset, or others' files
                parent.rmdir()


def _remove_abandoned(beside: pathlib.Path, prefix: str) -> int:
    """Remove what killed processes left; return how many places remain, perhaps still in use.

    For a process on another system, only the time of its last write is known.
    """
    left = 0
    for place in beside.glob(f"{prefix}*"):
        system, pid, _ = f"{place.name.removeprefix(prefix)}--".split("-", 2)
        if system == _system() and pid.isdecimal():
            abandoned = not is_alive(int(pid))
        else:
            abandoned = time.time() - _last_change(place) > _ABANDONED_SECONDS
        if abandoned:
            shutil.rmtree(place, ignore_errors=True)
        else:
            left += 1
    return left


def _system() -> str:
    """Identify the scope of process IDs: the host, its boot, its container."""
    return hashlib.sha256(f"{socket.gethostname()} {boot_id()}".encode()).hexdigest()[:12]


def _last_change(place: pathlib.Path) -> float:
    """Time of the last write in a folder, in seconds; now if it is being removed."""
    try:
        return max(path.stat().st_mtime for path in (place, *place.rglob("*")))
    except OSError:
        return time.time()


def _move(made: pathlib.Path, folder: pathlib.Path) -> None:
    """Move a finished dataset into place, unless another process was first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _build(dataset: str, place: pathlib.Path, raw: pathlib.Path | None) -> pathlib.Path:
    """Write the complete dataset below `place` and return its folder there."""
    import tensorflow_datasets as tfds

    builder_class, config = _builder(dataset)
    content = builder_class.read_config(config, raw)  # pyright: ignore[reportArgumentType]
    builder = builder_class(config=content, data_dir=place, file_format="array_record")
    # TFDS prints messages about downloads and its temporary folder.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=raw))
    folder = pathlib.Path(builder.data_path)
    counts, contents = {}, {}
    for split in builder.info.splits:
        labels, contents[split] = _stored(builder, split)
        counts[split] = len(labels["filename"])
        prepared.write_labels(folder, split, labels)
    _write_manifest(folder, builder, config, counts, contents)
    return folder


def _write_manifest(
    folder: pathlib.Path,
    builder: "PersonSearchBuilder",
    config: str,
    counts: dict[str, int],
    contents: dict[str, str],
) -> None:
    prepared.write_manifest(
        folder,
        dataset=f"{builder.name}/{config}" if config else builder.name,
        schema=builder.schema.to_dict(),
        wording=builder.wording.to_dict(),
        traits=dataclasses.asdict(builder.traits),
        counts=counts,
        contents=contents,
        sources=builder.sources,
    )


def _stored(builder: Any, split: str) -> tuple[prepared.SplitLabels, str]:
    """Read back the labels, so that they match the records, and a checksum of the content."""
    import tensorflow_datasets as tfds

    names = ("attributes", "identity", "camera", "filename")
    columns = {name: [] for name in names}
    digest = hashlib.sha256()
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    for record in ctrl_c.checked(source):
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
    """Add the arguments of `aima prepare`."""
    parser.add_argument(
        "dataset", help=f"one of {', '.join(DATASETS)}, or with a config: peta/random1, folder/NAME"
    )
    parser.add_argument(
        "--manual_dir", help="the raw files; by default downloads/manual in TFDS's folder"
    )
    parser.add_argument(
        "--data_dir", help=f"prepared datasets; by default TFDS_DATA_DIR, or else {_HOME}"
    )
    parser.add_argument("--check", action="store_true", help="verify a prepared dataset")


def run(options: argparse.Namespace) -> None:
    """Prepare or check a dataset, and print its numbers of pictures.

    Raises:
        ValueError, OSError: as `prepare`, `renew_manifest` and `check`.
    """
    try:
        if options.check:
            manifest = check(options.dataset, data_dir=options.data_dir)
        else:
            renew_manifest(options.dataset, data_dir=options.data_dir)
            places = {"manual_dir": options.manual_dir, "data_dir": options.data_dir}
            manifest = prepared.read_manifest(prepare(options.dataset, **places))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; nothing was left behind") from None
    counts = ", ".join(f"{split} {count:,}" for split, count in manifest["counts"].items())
    print(f"{manifest['dataset']} {'is intact' if options.check else 'is prepared'}: {counts}")


if __name__ == "__main__":
    sys.exit(cli.main(["prepare", *sys.argv[1:]]))
