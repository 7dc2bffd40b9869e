"""The folder of a run: its config, its environment, and its lock."""

import contextlib
import importlib.metadata
import json
import math
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from aima_jax.files import write_json
from aima_jax.locking import Lock, locked

CONFIG = "config.json"
RECORD = "environment.json"
RESULTS = "results.json"
METRICS_FILE = "metrics.jsonl"
RANKINGS = "rankings.npz"
REPORT = "report"

# Fields that change where and how a run is executed or reported, but not its results: a resumed run
# may change them.
_FREE_FIELDS = (
    "manual_dir",
    "data_dir",
    "mesh",
    "data",
    "protocols",
    "posterior_temperature",
    "eval_batch_size",
    "save_rankings",
    "report",
    "log_every_steps",
    "checkpoint_every_minutes",
    "checkpoint_every_steps",
    "on_save_error",
    "on_nonfinite",
    "profile",
    "trust_weights",
)
_PACKAGES = [
    "aima-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "pillow",
]


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path) -> Iterator[Lock]:
    """Lock an existing workdir for this process.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: another process is using it, or it is not a folder.
    """
    if workdir.is_file():
        raise ValueError(f"the workdir {workdir} is a file; give a folder")
    if not workdir.is_dir():
        raise FileNotFoundError(f"no workdir {workdir}: train first, or check --workdir")
    with locked(workdir) as lock:
        yield lock


@contextlib.contextmanager
def locked_workdir(
    workdir: pathlib.Path, config: ConfigDict | None = None
) -> Iterator[Callable[[], None]]:
    """Lock a workdir for writing by the first host; with a config, create it or compare configs.

    Yields:
        A function that raises ValueError on the first host if another process has taken over the
        workdir while this one was suspended.

    Raises:
        FileNotFoundError: it does not exist, and no config is given.
        ValueError: another process is using it, or it was created with another config.
    """
    import jax
    from jax.experimental import multihost_utils

    check = _nothing
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            if config is not None:
                with contextlib.suppress(FileExistsError, NotADirectoryError):
                    workdir.mkdir(parents=True, exist_ok=True)
            check = stack.enter_context(lock_workdir(workdir)).check
            if config is not None:
                write_config(workdir, config)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("workdir locked")
        yield check


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Return a config as JSON data, the form in which it is saved."""
    return json.loads(config.to_json())


def read_config(workdir: pathlib.Path) -> ConfigDict:
    """Read the config of a workdir, as data.

    Raises:
        FileNotFoundError: the folder is not a workdir.
        ValueError: its config has changed since it was written.
    """
    path = pathlib.Path(workdir) / CONFIG
    try:
        return ConfigDict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise FileNotFoundError(f"{workdir} is not a workdir: it has no {CONFIG}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Write the config if no run has started yet, else check that it is the run's.

    Raises:
        ValueError: the run has another config; the message names the fields that differ.
    """
    wanted = as_json(config)
    if (workdir / RECORD).exists():
        made = as_json(read_config(workdir))
        differing = [
            f"  {name}: {_at(made, name)!r} there, {_at(wanted, name)!r} now"
            for name in sorted(_leaves(made).keys() | _leaves(wanted).keys())
            if name.split(".")[0] not in _FREE_FIELDS and _at(made, name) != _at(wanted, name)
        ]
        if differing:
            raise ValueError(
                f"{workdir} was created with another config:\n"
                + "\n".join(differing)
                + "\nuse another --workdir, or the same values"
            )
    write_json(workdir / CONFIG, wanted)


def read_metrics(path: pathlib.Path) -> list[dict[str, int | float]]:
    """Read metrics.jsonl, null as NaN; an incomplete last line is ignored."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except ValueError:
            break
        rows.append({name: math.nan if v is None else v for name, v in values.items()})
    return rows


def record_start(workdir: pathlib.Path, **facts: Any) -> None:
    """Append the environment of this start of the run to the workdir's environment.json."""
    import jax

    path = workdir / RECORD
    starts = json.loads(path.read_text()) if path.exists() else []
    starts.append(
        {
            "command": sys.argv,
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in _PACKAGES},
            "git_commit": _git_commit(),
            "processes": jax.process_count(),
            "devices": [device.device_kind for device in jax.devices()],
            **facts,
        }
    )
    write_json(path, starts)


def _nothing() -> None:
    pass


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        leaves |= _leaves(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return leaves


def _at(tree: Mapping[str, Any], name: str) -> Any:
    return _leaves(tree).get(name, "absent")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this code, marked if it was changed; None outside its own repository.

    An installed package may be inside another project's repository.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if pathlib.Path(top).resolve() != root:
            return None
        _git(root, "ls-files", "--error-unmatch", __file__)
        return _git(root, "describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
