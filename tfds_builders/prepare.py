"""Prepare a dataset once: raw files in, checked ArrayRecord files with a manifest out.

    aima prepare market1501_attribute --manual_dir=… --data_dir=… [--check]

Leaves nothing behind where something is wrong with the files, or on an interruption.
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
    """Return the folder of a prepared dataset, and prepare it where it is not there yet.

    The folder appears at once when everything is in it. Of several processes that prepare the same
    dataset at a time, on any hosts, the first that is done provides it.

    Args:
        dataset: as "pa100k", or with a builder's config, as "peta/random1".
        manual_dir: where the raw files are; downloads/manual in TFDS's folder by default.
        data_dir: where prepared datasets go; TFDS's folder by default, which is TFDS_DATA_DIR or
            ~/tensorflow_datasets.

    Raises:
        FileNotFoundError, ValueError: the raw files, or a folder prepared earlier, are not what
            they should be, or no longer fit together; or no such dataset is known.
        OSError: the disk is full.
    """
    folder = find(dataset, data_dir=data_dir)
    manual_dir = user_path(manual_dir or _tfds_folder() / "downloads" / "manual")
    if folder is not None:
        _require_same_sources(folder, dataset, manual_dir, data_dir)
        return folder
    folder = _folder(dataset, data_dir)
    instructions = _builder(dataset)[0].MANUAL_DOWNLOAD_INSTRUCTIONS
    if instructions:
        require_folder(manual_dir, instructions)
    try:
        with ctrl_c.noticed(), _workplace(folder) as place:
            made = _build(dataset, place, manual_dir)
            ctrl_c.raise_lost()
            _move(made, folder)
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


def _require_same_sources(
    folder: pathlib.Path, dataset: str, manual_dir: pathlib.Path, data_dir: _Place
) -> None:
    """Check the files of which a dataset remembers the checksum.

    Raises:
        ValueError: one has changed.
    """
    for name, checksum in prepared.read_manifest(folder).get("sources", {}).items():
        path = manual_dir / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            words = ["aima", "prepare", dataset, f"--manual_dir={manual_dir}"]
            words += [f"--data_dir={data_dir}"] if data_dir else []
            raise ValueError(
                f"{path} has changed since {dataset} was prepared from it; prepare it anew by: "
                f"rm -r {shlex.quote(str(folder))} && {shlex.join(words)}"
            )


def find(dataset: str, *, data_dir: _Place = None) -> pathlib.Path | None:
    """Return the folder of a prepared dataset, None where there is none.

    Raises:
        ValueError: the folder is there, but its manifest is missing, damaged or of another format;
            or no such dataset is known.
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
            f"prepare {dataset}, or give its --data_dir"
        )
    return folder


def check(dataset: str, *, data_dir: _Place = None) -> dict[str, Any]:
    """Verify a prepared dataset against its counts and checksums, and return its manifest.

    Raises:
        FileNotFoundError: it is not prepared.
        ValueError: naming every file that is damaged or missing.
    """
    return prepared.read_verified(require(dataset, data_dir=data_dir))


def renew_manifest(dataset: str, *, data_dir: _Place = None) -> None:
    """Write the manifest anew where an earlier version prepared the dataset; records stay.

    Raises:
        ValueError: a file is damaged or missing, or the dataset's attributes are others by now.
    """
    folder = _folder(dataset, data_dir)
    try:
        if "format" in read_sealed_json(folder / prepared.MANIFEST):
            return
    except (FileNotFoundError, ValueError):
        return  # `find` tells what is wrong
    manifest = prepared.read_verified(folder, version=1)
    builder_class, config = _builder(dataset)
    builder = builder_class(config=config or None, data_dir=folder)
    if manifest["schema"] != builder.schema.to_dict():
        raise ValueError(
            f"{folder} was prepared by an earlier version, with other attributes: move the folder "
            "away, or give another --data_dir, and prepare the dataset again"
        )
    _write_manifest(folder, builder, config, manifest["counts"], manifest["contents"])


def common_pictures(trained: str, asked: str) -> bool:
    """Tell whether the test split of one dataset may hold training pictures of another."""
    if trained.partition("/")[0] not in DATASETS:
        return False
    (builder, config), (other, other_config) = _builder(trained), _builder(asked)
    if builder is other and builder.one_division:
        return False
    return not builder.pictures(config).isdisjoint(other.pictures(other_config))


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
    """Where TFDS keeps the dataset, prepared or not."""
    builder, config = _builder(dataset)
    data_dir = user_path(data_dir or _tfds_folder())
    return data_dir / builder.name / config / str(builder.VERSION)


def _tfds_folder() -> pathlib.Path:
    return user_path(os.environ.get("TFDS_DATA_DIR") or _HOME)


@contextlib.contextmanager
def _workplace(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder on the disk of `folder`, of this process alone, and gone afterwards."""
    beside = folder.parent
    created = [parent for parent in (beside, *beside.parents) if not parent.exists()]
    prefix = f".{folder.name}.preparing-"
    while True:
        try:
            beside.mkdir(parents=True, exist_ok=True)
            others = _remove_abandoned(beside, prefix)
            place = tempfile.mkdtemp(prefix=f"{prefix}{_system()}-{os.getpid()}-", dir=beside)
            break
        except FileNotFoundError:  # who had made it as well removes it just now
            continue
    if others:
        print(f"another process prepares {folder} as well; the first is taken", file=sys.stderr)
    try:
        yield pathlib.Path(place)
    finally:
        shutil.rmtree(place)
        for parent in created:
            with contextlib.suppress(OSError):  # it holds the dataset, or another's files
                parent.rmdir()


def _remove_abandoned(beside: pathlib.Path, prefix: str) -> int:
    """Remove what killed processes left; return how many places are left, at work perhaps.

    Of a process on another system nothing is known but when it last wrote.
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
    """Name the system whose process numbers these are: the host, its boot, its container."""
    return hashlib.sha256(f"{socket.gethostname()} {boot_id()}".encode()).hexdigest()[:12]


def _last_change(place: pathlib.Path) -> float:
    """When something in a folder was last written, in seconds; now where it is being removed."""
    try:
        return max(path.stat().st_mtime for path in (place, *place.rglob("*")))
    except OSError:
        return time.time()


def _move(made: pathlib.Path, folder: pathlib.Path) -> None:
    """Put a finished dataset into its place, unless another process was first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _build(dataset: str, place: pathlib.Path, manual_dir: pathlib.Path) -> pathlib.Path:
    """Write the complete dataset below `place`, and returns its folder there."""
    import tensorflow_datasets as tfds

    builder_class, config = _builder(dataset)
    content = builder_class.read_config(config, manual_dir)
    builder = builder_class(config=content, data_dir=place, file_format="array_record")
    # TFDS prints about downloads and its temporary folder.
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
    """Read the records back: their labels, which thus cannot disagree, and what they amount to."""
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
    """Add what `aima prepare` takes."""
    parser.add_argument(
        "dataset", help=f"one of {', '.join(DATASETS)}, or as peta/random1, folder/NAME"
    )
    parser.add_argument("--manual_dir", help="the raw files; downloads/manual in TFDS's folder")
    parser.add_argument(
        "--data_dir", help=f"the prepared ones; TFDS's folder: TFDS_DATA_DIR, or else {_HOME}"
    )
    parser.add_argument("--check", action="store_true", help="verify a prepared dataset")


def run(options: argparse.Namespace) -> None:
    """Prepare or check a dataset, and print how many pictures it has.

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
    print(f"{manifest['dataset']} {'is sound' if options.check else 'is prepared'}: {counts}")


if __name__ == "__main__":
    sys.exit(cli.main(["prepare", *sys.argv[1:]]))
