"""Weights that are not here, or only in Hugging Face's cache: what is fetched, and what is said."""

import json
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from aima_jax.convert import load_clip
from aima_jax.convert.weights import open_weights


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.safetensors, .*pytorch_model.bin"):
        load_clip(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"openai/clip-vit-base-patch16"):
        load_clip(tmp_path / "none.pt")
    for name in ("folder/none.safetensors", "ViT-B-16.pt"):
        with pytest.raises(FileNotFoundError, match="no weights at"):
            load_clip(name)


def test_without_network_the_message_says_which_files_go_where(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    for error in (
        errors.LocalEntryNotFoundError("no network\nat all"),
        RuntimeError("no network"),  # as a proxy's, which is of the HTTP library's own kind
    ):

        def offline(name, file, *, local_files_only, error=error):
            absent = errors.LocalEntryNotFoundError("not in the cache")
            raise absent if local_files_only else error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
        with pytest.raises(FileNotFoundError) as raised:
            load_clip("openai/clip-vit-base-patch16")
        message = str(raised.value)
        assert "\n" not in message
        for words in (
            "no network",
            "config.json",
            "model.safetensors",
            "huggingface.co/openai/clip-vit-base-patch16",
        ):
            assert words in message


@pytest.mark.parametrize("weights", ["model.safetensors", "model.safetensors.index.json"])
def test_a_hugging_face_id_is_fetched_once(weights, tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    hub, cache = tmp_path / "hub", tmp_path / "cache"
    hub.mkdir()
    cache.mkdir()
    shard = "a.safetensors" if "index" in weights else weights
    save_file({"visual.proj": np.ones((4, 4), np.float32)}, hub / shard)
    (hub / "config.json").write_text("{}")
    if "index" in weights:
        (hub / weights).write_text(json.dumps({"weight_map": {"visual.proj": shard}}))
    fetched = []

    def download(name, file, *, local_files_only):
        if not (cache / file).exists():
            if local_files_only:
                raise errors.LocalEntryNotFoundError(file)
            if not (hub / file).exists():
                raise errors.EntryNotFoundError(file)
            shutil.copy(hub / file, cache / file)
            fetched.append(file)
        return str(cache / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for _ in range(2):
        opened = open_weights("some/clip")
        assert dict(opened.shapes) == {"visual.proj": (4, 4)}
    assert fetched == ["config.json", *dict.fromkeys((weights, shard))]


def test_what_is_in_hugging_face_s_cache_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0" * 40
    folder = tmp_path / "models--some--clip"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(FileNotFoundError, match="some/clip is not a path here"):
        open_weights("some/clip")
    (snapshot / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors"}}')
    save_file({"a": np.ones(3, np.float32)}, snapshot / "1.safetensors")
    opened = open_weights("some/clip")
    assert dict(opened.shapes) == {"a": (3,)}
    assert opened.sidecars == {"config.json": {"model_type": "clip"}}


def test_without_pytorch_its_files_are_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match="pip install torch"):
        load_clip(tmp_path)
