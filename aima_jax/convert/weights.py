"""Weights files: finding them, and reading their arrays one at a time."""

import contextlib
import json
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from aima_jax.convert.sidecars import HUGGING_FACE_FILE, OPEN_CLIP_FILE, PREPROCESSOR_FILE
from aima_jax.files import atomic_write, user_path

# Names of weights in a folder or on the hub, by the config file beside them.
WEIGHTS = {
    HUGGING_FACE_FILE: (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    OPEN_CLIP_FILE: (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
    ),
}
ALL_WEIGHTS = tuple(name for names in WEIGHTS.values() for name in names)
SIDECARS = (HUGGING_FACE_FILE, PREPROCESSOR_FILE, OPEN_CLIP_FILE)
DAMAGED = "{path} is truncated or damaged ({reason}): fetch or copy it again"
TORCH_NEEDED = (
    "reading {path} needs PyTorch, which is not installed: pip install torch, or use a "
    "safetensors file, which does not need it"
)


Sidecars = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Weights:
    """The arrays of a checkpoint, read lazily.

    Attributes:
        path: for messages.
        shapes: by name.
        read: returns one array.
        sidecars: the files of `SIDECARS` found beside it, by name.
        metadata: of a safetensors file.
    """

    path: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    sidecars: Sidecars = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def open_weights(name_or_path: str | pathlib.Path, *, trust_weights: bool = False) -> Weights:
    """Open a Hugging Face id, a folder, or a file.

    Args:
        name_or_path: an id such as "openai/clip-vit-base-patch16"; a folder with weights and the
            config they came with; a safetensors file, the index of several, or a PyTorch file.
        trust_weights: open TorchScript archives, which can run code.

    Raises:
        FileNotFoundError: there is no such file, or no network to fetch it.
        ValueError: the file is damaged, or cannot be read without trust or without PyTorch.
    """
    path = user_path(name_or_path)
    if not path.exists():
        if not _is_hub_id(str(name_or_path)):
            raise FileNotFoundError(
                f"no weights at {name_or_path}: expected a Hugging Face id such as "
                "openai/clip-vit-base-patch16, a folder or a file"
            )
        path = _fetch(str(name_or_path))
    elif path.is_dir():
        path = _weights_in(path)
    found = {name: _read_json(path.parent / name) for name in SIDECARS}
    sidecars = {name: content for name, content in found.items() if content is not None}
    if path.name.endswith(".index.json"):
        return _open_sharded(path, sidecars)
    return _open_file(path, sidecars, trust_weights)


def _is_hub_id(name: str) -> bool:
    suffixes = (".safetensors", ".json", ".bin", ".pt", ".pth")
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not name.endswith(suffixes)


def _weights_in(folder: pathlib.Path) -> pathlib.Path:
    for name in ALL_WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"no weights in {folder}: expected one of {', '.join(ALL_WEIGHTS)}")


def _fetch(name: str) -> pathlib.Path:
    """Path of a model's weights in Hugging Face's cache, fetched if necessary."""
    from huggingface_hub import errors

    try:
        try:
            return _from_hub(name, cached=True)
        except errors.LocalEntryNotFoundError:
            return _from_hub(name, cached=False)
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"the Hugging Face hub has no {name} that you can access ({_reason(error)})"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise FileNotFoundError(
            f"{name} on the Hugging Face hub has no weights: expected {HUGGING_FACE_FILE} or "
            f"{OPEN_CLIP_FILE}, and one of {', '.join(ALL_WEIGHTS)}"
        ) from None
    except Exception as error:  # the error types differ between versions
        raise FileNotFoundError(
            f"{name} is not a path here, not in the Hugging Face cache, and could not be fetched "
            f"({_reason(error)}). On a machine with a network open "
            f"https://huggingface.co/{name}/tree/main, copy config.json, preprocessor_config.json "
            "and model.safetensors (or pytorch_model.bin), or open_clip_config.json and its "
            "weights, into a folder here, and name that folder instead"
        ) from None


def _from_hub(name: str, *, cached: bool) -> pathlib.Path:
    """Path of a model's weights in the cache, as they are or updated from the network."""
    import huggingface_hub
    from huggingface_hub import errors

    fetch = partial(huggingface_hub.hf_hub_download, name, local_files_only=cached)
    absent: Exception | None = None
    for config, names in WEIGHTS.items():
        try:
            fetch(config)
        except errors.EntryNotFoundError as error:
            absent = absent or error
            continue
        for file in names:
            try:
                path = pathlib.Path(fetch(file))
                if path.name.endswith(".index.json"):
                    for shard in sorted(set(_weight_map(path).values())):
                        fetch(shard)
                if config == HUGGING_FACE_FILE:
                    _fetch_preprocessor(name)
                return path
            except errors.EntryNotFoundError as error:
                absent = error
                if isinstance(error, errors.LocalEntryNotFoundError) and not cached:
                    raise  # no network
    assert absent is not None  # a file of each kind was asked for
    raise absent


def _fetch_preprocessor(name: str) -> None:
    """Fetch the pixel statistics to the weights, if the hub has them and can be reached."""
    import huggingface_hub

    known = huggingface_hub.try_to_load_from_cache(name, PREPROCESSOR_FILE)
    if known is None:  # neither cached nor known to be absent
        with contextlib.suppress(Exception):  # the error types differ between versions
            huggingface_hub.hf_hub_download(name, PREPROCESSOR_FILE, local_files_only=False)


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not contain a JSON object")
    return content


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    content = _read_json(index)
    if content is None or not isinstance(content.get("weight_map"), dict):
        raise ValueError(f'{index} is not an index of weights: expected "weight_map" in it')
    return content["weight_map"]


def _open_sharded(index: pathlib.Path, sidecars: Sidecars) -> Weights:
    """Open several files with one index that maps arrays to files."""
    weight_map = _weight_map(index)
    files = {}
    for name in sorted(set(weight_map.values())):
        if not (index.parent / name).exists():
            raise FileNotFoundError(f"{index} names {name}, which is not beside it")
        files[name] = _open_file(index.parent / name, sidecars, trust_weights=False)
    listed = {(key, name) for key, name in weight_map.items()}
    found = {(key, name) for name, file in files.items() for key in file.shapes}
    if listed != found:
        wrong = ", ".join(sorted(f"{key} in {name}" for key, name in listed ^ found))
        raise ValueError(f"{index} and its files do not list the same arrays: {wrong}")
    return Weights(
        index,
        {key: files[name].shapes[key] for key, name in weight_map.items()},
        lambda key: files[weight_map[key]].read(key),
        sidecars,
    )


def _open_file(path: pathlib.Path, sidecars: Sidecars, trust_weights: bool) -> Weights:
    if path.suffix == ".safetensors" or is_safetensors(path):
        return _open_safetensors(path, sidecars)
    return _open_torch(path, sidecars, trust_weights)


def is_safetensors(path: pathlib.Path) -> bool:
    """Whether a file is in safetensors format, by its content, not its name."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _open_safetensors(path: pathlib.Path, sidecars: Sidecars) -> Weights:
    """Memory-map a file; each array is read on demand."""
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(DAMAGED.format(path=path, reason=error)) from None
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return Weights(path, shapes, file.get_tensor, sidecars, file.metadata() or {})


def write_safetensors(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write a file atomically, creating its folder if necessary.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as temporary:
            save_file(dict(arrays), temporary, dict(metadata))
            temporary.chmod(0o644)  # safetensors makes it readable only by the owner
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from None


def _open_torch(path: pathlib.Path, sidecars: Sidecars, trust_weights: bool) -> Weights:
    """Read a state dict, or a TorchScript archive if trusted."""
    zipped = zipfile.is_zipfile(path)  # files older than PyTorch 1.6 are not archives
    script = zipped and _is_torchscript(path)
    if script and not trust_weights:
        raise ValueError(
            f"{path} is a TorchScript archive, which can run code: if you trust its source, set "
            "trust_weights=True (--trust_weights, or --config.trust_weights=True in run.py)"
        )
    try:
        import torch
    except ImportError:
        raise ValueError(TORCH_NEEDED.format(path=path)) from None
    try:
        if script:
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is damaged, or contains more than weights, which could run code: fetch it "
            "again, or save only its state dict"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise ValueError(DAMAGED.format(path=path, reason=_reason(error))) from None
    state = _state_dict(path, state)

    def read(name: str) -> np.ndarray:
        tensor = state[name].detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    return Weights(path, {name: tuple(x.shape) for name, x in state.items()}, read, sidecars)


def _reason(error: Exception) -> str:
    """The first line of a library's error message, which may be long or empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _is_torchscript(path: pathlib.Path) -> bool:
    """Distinguish it from a state dict, after verifying the checksums, which PyTorch ignores."""
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"{broken} in it has a wrong checksum")
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(DAMAGED.format(path=path, reason=error)) from None
    return any(re.match(r"[^/]+/(code/|constants\.pkl$)", name) for name in names)


def _state_dict(path: pathlib.Path, content: Any) -> dict[str, Any]:
    """Extract the weights from what training code saved."""
    for wrapping in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping) or not all(hasattr(x, "shape") for x in content.values()):
        raise ValueError(f"{path} does not contain a state dict, a table of arrays by name")
    if content and all(name.startswith("module.") for name in content):  # DistributedDataParallel
        content = {name.removeprefix("module."): x for name, x in content.items()}
    return dict(content)
