"""Checkpoints that are not what they should be: always an error that says so, never a model."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from aima_jax.convert import clip as convert_clip
from aima_jax.convert import files, load_aima, load_clip, load_irra
from aima_jax.convert.files import Checkpoint
from aima_jax.convert.mapping import entries_of
from aima_jax.convert.tables import HUGGING_FACE, OPENAI, OPENAI_RESNET
from aima_jax.models import CLIP, CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.parameters import flatten

# No two sizes are alike, so that a transposed array cannot pass for another.
CONFIG = CLIPConfig(
    image_size=(96, 96),
    dim=72,
    vision=ViTConfig(128, 2, heads=2, mlp_width=520, patch_size=16, patch_stride=16),
    text=TextConfig(64, 3, heads=1, mlp_width=250),
)
RESNET = dataclasses.replace(
    CONFIG, image_size=(160, 160), vision=ResNetConfig(32, (1, 2, 1, 1), heads=16)
)
LAYOUTS = {
    "Hugging Face": (CONFIG, HUGGING_FACE),
    "OpenAI": (CONFIG, OPENAI),
    "OpenAI ResNet": (RESNET, OPENAI_RESNET),
}


def shapes_in(config, table):
    """What a checkpoint of a model holds, in another layout."""
    ours = flatten(nnx.eval_shape(lambda: CLIP(config, rngs=nnx.Rngs(0))))
    entries = entries_of(ours, table)
    return {entry.theirs: entry.their_shape(ours[entry.ours[0]].shape) for entry in entries}


SHAPES = {name: shapes_in(*layout) for name, layout in LAYOUTS.items()}


def load(shapes, monkeypatch, config=None, metadata=None):
    """Loads a checkpoint of ones that was never written."""
    checkpoint = Checkpoint(
        "weights.file", shapes, lambda name: np.ones(shapes[name]), config, metadata or {}
    )
    with monkeypatch.context() as patch:
        patch.setattr(convert_clip, "open_checkpoint", lambda *_, **__: checkpoint)
        return load_clip("weights.file", image_size=None)


@pytest.mark.parametrize("layout", SHAPES)
def test_a_sound_checkpoint_tells_its_own_shape(layout, monkeypatch):
    harmless = {"logit_scale": (), "context_length": (), "visual.bn1.num_batches_tracked": ()}
    if layout == "Hugging Face":
        harmless = {"logit_scale": (), "text_model.embeddings.position_ids": (1, 77)}
    config, _ = load(SHAPES[layout] | harmless, monkeypatch)
    assert config == LAYOUTS[layout][0]


@pytest.mark.parametrize("layout", SHAPES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_one_wrong_key_is_always_named(layout, data):
    shapes = dict(SHAPES[layout])
    key = data.draw(st.sampled_from(sorted(shapes)))
    shape = shapes[key]
    damage = data.draw(st.sampled_from(["drop", "add", "rename", "transpose", "truncate", "grow"]))
    if damage in ("drop", "rename"):
        del shapes[key]
    if damage in ("add", "rename"):
        shapes[f"{key}_extra"] = shape
    if damage == "transpose":
        shapes[key] = shape[::-1]
    if damage in ("truncate", "grow"):
        axis = data.draw(st.integers(0, len(shape) - 1))
        step = -1 if damage == "truncate" else 1
        shapes[key] = (*shape[:axis], shape[axis] + step, *shape[axis + 1 :])
    monkeypatch = pytest.MonkeyPatch()
    if shapes == SHAPES[layout]:  # a square, or a vector, is its own transpose
        load(shapes, monkeypatch)
        return
    with pytest.raises(ValueError) as error:
        load(shapes, monkeypatch)
    message = str(error.value)
    assert key in message or "position table" in message
    for other in SHAPES[layout]:  # nothing else is blamed
        assert other == key or f" {other} is (" not in message, message


def test_all_problems_are_listed_at_once(monkeypatch):
    shapes = dict(SHAPES["OpenAI"])
    for key in ("ln_final.bias", "visual.transformer.resblocks.1.mlp.c_fc.weight"):
        del shapes[key]
    shapes |= {"visual.proj": (3, 72), "stray": (1,), "text_decoder.weight": (2, 2)}
    with pytest.raises(ValueError) as error:
        load(shapes, monkeypatch)
    assert str(error.value).splitlines()[1:] == [
        "  missing (2): ln_final.bias, visual.transformer.resblocks.1.mlp.c_fc.weight",
        "  unexpected (2): stray, text_decoder.weight",
        "  of wrong shape (1): visual.proj is (3, 72), expected (128, 72)",
    ]


def test_a_missing_last_block_is_noticed_where_a_config_counts_them(monkeypatch):
    shapes = {
        k: v for k, v in SHAPES["Hugging Face"].items() if "text_model.encoder.layers.2" not in k
    }
    config = {"text_config": {"num_attention_heads": 1, "num_hidden_layers": 3}}
    with pytest.raises(ValueError, match=r"text_config.num_hidden_layers is 3, expected 2"):
        load(shapes, monkeypatch, config)


@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [
        ("vision_config", "patch_size", 32),
        ("vision_config", "hidden_size", 256),
        ("vision_config", "layer_norm_eps", 1e-6),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "intermediate_size", 256),
        ("text_config", "eos_token_id", 99),
        ("text_config", "vocab_size", 30000),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(tower, field, value, monkeypatch):
    config = {
        "vision_config": {"num_attention_heads": 2},
        "text_config": {"num_attention_heads": 1, "eos_token_id": 2},
    }
    load(SHAPES["Hugging Face"], monkeypatch, config)
    config[tower][field] = value
    with pytest.raises(ValueError, match=f"{tower}.{field} is {value}"):
        load(SHAPES["Hugging Face"], monkeypatch, config)


def test_strangers_are_named(monkeypatch):
    whole = SHAPES["Hugging Face"]
    text = {k: v for k, v in whole.items() if k.startswith("text_")}
    image = {k: v for k, v in whole.items() if k.startswith("vis")}
    resnet = {"layer1.0.conv1.weight": (64, 64, 1, 1)}
    for shapes, config, message in (
        (text, None, "text tower alone"),
        (image, None, "image tower alone"),
        ({"encoder.layers.0.mlp.fc1.weight": (1, 1)}, "clip_text_model", "text tower alone"),
        ({"embeddings.class_embedding": (1,)}, "clip_vision_model", "image tower alone"),
        (whole | {"logit_bias": (1,)}, "siglip", "SigLIP"),
        (whole | {"logit_bias": (1,)}, None, "SigLIP"),
        (whole, "chinese_clip", "'chinese_clip' model"),
        (resnet, None, "layer1.0.conv1.weight"),
        ({}, None, "nothing in it"),
        ({"base_model.logit_scale": ()}, None, "load_irra"),
    ):
        with pytest.raises(ValueError, match=message):
            load(shapes, monkeypatch, config and {"model_type": config})
    with pytest.raises(ValueError, match="load_aima"):
        load({}, monkeypatch, metadata={"aima": "1"})


def test_damaged_and_strange_files_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"visual.proj": np.ones((4, 4), np.float32)}, path)
    sound = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    for content in (sound[:-1], sound[:30], b"", pointer):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model.safetensors is truncated or damaged"):
            load_clip(tmp_path)
    path.write_bytes(sound)
    for load_other, message in (
        (load_aima, "no whole AIMA model"),
        (load_irra, "no checkpoint of"),
    ):
        with pytest.raises(ValueError, match=message):
            load_other(path)
    for content, message in (("{", "config.json is not JSON"), ("[]", "no JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_clip(tmp_path)


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

    def offline(name, file):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(FileNotFoundError) as error:
        load_clip("openai/clip-vit-base-patch16")
    for words in (
        "config.json",
        "model.safetensors",
        "huggingface.co/openai/clip-vit-base-patch16",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("weights", ["model.safetensors", "model.safetensors.index.json"])
def test_a_hugging_face_id_is_fetched(weights, tmp_path, monkeypatch):
    import huggingface_hub

    arrays = {"visual.proj": np.ones((4, 4), np.float32)}
    save_file(
        arrays, tmp_path / ("model.safetensors" if "index" not in weights else "a.safetensors")
    )
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"visual.proj": "a.safetensors"}}
    if "index" in weights:
        (tmp_path / weights).write_text(json.dumps(index))
    fetched = []

    def download(name, file):
        fetched.append(file)
        if not (tmp_path / file).exists():
            raise huggingface_hub.errors.EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    checkpoint = files.open_checkpoint("some/clip")
    assert dict(checkpoint.shapes) == {"visual.proj": (4, 4)}
    assert fetched[0] == "config.json"
    assert fetched[-1] == ("a.safetensors" if "index" in weights else weights)


def test_without_pytorch_its_files_are_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match="pip install torch"):
        load_clip(tmp_path)


def test_every_row_of_the_tables_has_a_use():
    for config, table in LAYOUTS.values():
        ours = flatten(nnx.eval_shape(lambda config=config: CLIP(config, rngs=nnx.Rngs(0))))
        used = {row.theirs for row in table}
        entries = entries_of(ours, table)
        assert len({entry.theirs for entry in entries}) == len(entries)
        assert sorted(name for entry in entries for name in entry.ours) == sorted(ours)
        assert len(used) == len(table)
