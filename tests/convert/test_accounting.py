"""Checkpoints that are not what they should be: always an error that says so, never a model."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from aima_jax.convert import load as loading
from aima_jax.convert import load_aima, load_clip, load_irra, load_pretrained
from aima_jax.convert.layouts import (
    HUGGING_FACE,
    OPENAI,
    OPENAI_RESNET,
    custom_text,
    entries_of,
    identity,
    irra,
)
from aima_jax.convert.shapes import Overrides
from aima_jax.convert.weights import Weights
from aima_jax.models import (
    AIMA,
    CLIP,
    AIMAConfig,
    CLIPConfig,
    ResNetConfig,
    TextConfig,
    ViTConfig,
)
from aima_jax.parameters import flatten

TOLD = {"activation": "quick_gelu", "vision_heads": 2, "text_heads": 1}
# No two sizes are alike, so that a transposed array cannot pass for another.
CONFIG = CLIPConfig(
    image_size=(96, 96),
    dim=192,
    vision=ViTConfig(128, 2, heads=2, mlp_width=520, patch_size=16, patch_stride=16),
    text=TextConfig(64, 3, heads=1, mlp_width=250),
)
RESNET = dataclasses.replace(
    CONFIG, image_size=(160, 160), vision=ResNetConfig(32, (1, 2, 1, 1), heads=16)
)
WHOLE = AIMAConfig(CONFIG, num_categories=7, fusion_depth=2)
LAYOUTS = {
    "Hugging Face": (CONFIG, HUGGING_FACE),
    "OpenAI": (CONFIG, OPENAI),
    "OpenAI ResNet": (RESNET, OPENAI_RESNET),
    "open_clip with custom_text": (CONFIG, custom_text(OPENAI)),
    "IRRA": (WHOLE, irra(OPENAI)),
    "IRRA ResNet": (dataclasses.replace(WHOLE, clip=RESNET), irra(OPENAI_RESNET)),
    "AIMA": (WHOLE, None),
}


def abstract(config):
    kind = CLIP if isinstance(config, CLIPConfig) else AIMA
    return flatten(nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0))))


@functools.cache
def shapes_in(config, table):
    """What a checkpoint of a model holds, in another layout."""
    ours = abstract(config)
    entries = identity(ours) if table is None else entries_of(ours, table)
    return {entry.theirs: entry.their_shape(ours[entry.ours[0]].shape) for entry in entries}


SHAPES = {name: shapes_in(*layout) for name, layout in LAYOUTS.items()}


def load(shapes, monkeypatch, config=None, metadata=None):
    """Load a CLIP from a checkpoint that was never written."""
    sidecars = {} if config is None else {"config.json": config}
    told = TOLD if config is None else {}
    with monkeypatch.context() as patch:
        unwritten(patch, shapes, sidecars, metadata)
        return load_clip("weights.file", image_size=None, **told)


def unwritten(patch, shapes, sidecars=None, metadata=None):
    checkpoint = Weights(
        "weights.file",
        shapes,
        lambda name: np.broadcast_to(np.float32(1), shapes[name]),
        sidecars or {},
        metadata or {},
    )
    patch.setattr(loading, "open_weights", lambda *_, **__: checkpoint)


def load_any(shapes, config, table):
    """Load what a training can start from, and gives the shape that was found."""
    clip = config if isinstance(config, CLIPConfig) else config.clip
    metadata = {"aima": "1", "config": json.dumps(config.to_dict())} if table is None else {}
    with pytest.MonkeyPatch().context() as patch:
        unwritten(patch, shapes, metadata=metadata)
        return load_pretrained(
            "weights.file",
            num_categories=7,
            image_size=clip.image_size,
            vision_heads=clip.vision.heads,
            text_heads=clip.text.heads,
            activation="quick_gelu",
        ).config


@pytest.mark.parametrize("layout", SHAPES)
def test_a_sound_checkpoint_tells_its_own_shape(layout):
    config, table = LAYOUTS[layout]
    harmless = {
        "Hugging Face": ("logit_scale", "text_model.embeddings.position_ids"),
        "OpenAI": ("logit_scale", "context_length"),
        "OpenAI ResNet": ("input_resolution", "visual.bn1.num_batches_tracked"),
        "open_clip with custom_text": ("logit_scale", "text.attn_mask"),
        "IRRA": ("base_model.logit_scale",),
        "IRRA ResNet": ("base_model.visual.layer1.0.bn1.num_batches_tracked",),
        "AIMA": (),
    }
    shapes = SHAPES[layout] | dict.fromkeys(harmless[layout], ())
    assert load_any(shapes, config, table) == config


def with_blocks(config, number):
    """A model of the same kind with this many blocks everywhere."""
    if isinstance(config, AIMAConfig):
        clip = with_blocks(config.clip, number)
        return dataclasses.replace(config, clip=clip, fusion_depth=number)
    layers = number if isinstance(config.vision.layers, int) else (number, 1, 1, 1)
    return dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, layers=layers),
        text=dataclasses.replace(config.text, layers=number),
    )


@pytest.mark.parametrize("layout", SHAPES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_one_wrong_key_is_always_named(layout, data):
    config, table = LAYOUTS[layout]
    config = with_blocks(config, data.draw(st.integers(1, 2)))
    sound = shapes_in(config, table)
    shapes = dict(sound)
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
    if shapes == sound:  # a square, or a vector, is its own transpose
        assert load_any(shapes, config, table) == config
        return
    with pytest.raises(ValueError) as error:
        load_any(shapes, config, table)
    message = str(error.value)
    if key.startswith("classifier."):  # of two arrays neither is in the right
        key = "classifier."
    assert key in message or "position table" in message
    for other in sound:  # nothing else is blamed
        assert other.startswith(key) or f" {other} is (" not in message, message


def test_all_problems_are_listed_at_once(monkeypatch):
    shapes = dict(SHAPES["OpenAI"])
    for key in ("ln_final.bias", "visual.transformer.resblocks.1.mlp.c_fc.weight"):
        del shapes[key]
    shapes |= {"visual.proj": (3, 192), "stray": (1,), "word_decoder.weight": (2, 2)}
    with pytest.raises(ValueError) as error:
        load(shapes, monkeypatch)
    assert str(error.value).splitlines()[1:] == [
        "  missing (2): ln_final.bias, visual.transformer.resblocks.1.mlp.c_fc.weight",
        "  unexpected (2): stray, word_decoder.weight",
        "  of wrong shape (1): visual.proj is (3, 192), expected (128, 192)",
    ]


def test_a_stray_number_asks_for_no_million_of_blocks(monkeypatch):
    name = "text_model.encoder.layers.{}.mlp.fc1.bias"
    shapes = dict(SHAPES["Hugging Face"])
    shapes[name.format(999_999)] = shapes.pop(name.format(1))
    with pytest.raises(ValueError) as error:
        load(shapes, monkeypatch)
    assert name.format(1) in str(error.value)
    assert f"unexpected (1): {name.format(999_999)}" in str(error.value)


def test_a_missing_last_block_is_noticed_where_a_config_counts_them(monkeypatch):
    shapes = {
        k: v for k, v in SHAPES["Hugging Face"].items() if "text_model.encoder.layers.2" not in k
    }
    config = {
        "vision_config": {"num_attention_heads": 2},
        "text_config": {"num_attention_heads": 1, "num_hidden_layers": 3},
    }
    with pytest.raises(ValueError, match=r"text_config.num_hidden_layers is 3, expected 2"):
        load(shapes, monkeypatch, config)


@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [
        ("vision_config", "patch_size", 32),
        ("vision_config", "hidden_size", 256),
        ("vision_config", "layer_norm_eps", 1e-6),
        ("text_config", "hidden_act", "relu"),
        ("vision_config", "hidden_act", "gelu_new"),
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
    prefixed = SHAPES["open_clip with custom_text"]
    resnet = {"layer1.0.conv1.weight": (64, 64, 1, 1)}
    for shapes, config, message in (
        (text, None, "only CLIP's text tower"),
        (image, None, "only CLIP's image tower"),
        ({"encoder.layers.0.mlp.fc1.weight": (1, 1)}, "clip_text_model", "only CLIP's text"),
        ({"embeddings.class_embedding": (1,)}, "clip_vision_model", "only CLIP's image"),
        (whole | {"logit_bias": (1,)}, "siglip", "SigLIP"),
        (whole | {"logit_bias": (1,)}, None, "SigLIP"),
        (whole, "chinese_clip", "'chinese_clip' model"),
        (SHAPES["OpenAI"] | {"text_decoder.ln_final.bias": (1,)}, None, "a CoCa"),
        (SHAPES["OpenAI"] | {"visual.attn_pool.query": (1, 1)}, None, "pools by attention"),
        (prefixed | {"text.cls_emb": (64,)}, None, "class token"),
        ({"visual.trunk.norm.bias": (1,)}, None, "image tower from timm"),
        ({"text.transformer.embeddings.bias": (1,)}, None, "text tower from transformers"),
        (resnet, None, "layer1.0.conv1.weight"),
        ({}, None, "no arrays"),
        ({"base_model.logit_scale": ()}, None, "load_irra"),
    ):
        with pytest.raises(ValueError, match=message):
            load(shapes, monkeypatch, config and {"model_type": config})
    with pytest.raises(ValueError, match="load_aima"):
        load({}, monkeypatch, metadata={"aima": "1"})


OPENAI_SIZES = {"input_resolution": (), "context_length": (), "vocab_size": ()}


@pytest.mark.parametrize("name", ["ViT-B/32", "RN50"])
def test_openai_s_own_archives_need_no_word_and_nothing_else_passes_for_one(name, monkeypatch):
    preset = CLIPConfig.preset(name)
    shapes = shapes_in(preset, OPENAI_RESNET if name == "RN50" else OPENAI)

    def load_alone(shapes):
        with monkeypatch.context() as patch:
            unwritten(patch, shapes)
            return loading.clip_source(loading.open_weights("weights.file"), Overrides())[0]

    assert load_alone(shapes | OPENAI_SIZES) == preset
    fewer_blocks = {k: v for k, v in shapes.items() if "transformer.resblocks.11." not in k}
    for other in (shapes, shapes | {"input_resolution": ()}, fewer_blocks | OPENAI_SIZES):
        with pytest.raises(ValueError, match=r"not certainly OpenAI's own.*config\.model\.activ"):
            load_alone(other)


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
        (load_aima, "not a whole AIMA model"),
        (load_irra, "not a checkpoint of"),
    ):
        with pytest.raises(ValueError, match=message):
            load_other(path)
    for content, message in (("{", "config.json is not JSON"), ("[]", "not contain a JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_clip(tmp_path)


def test_every_row_of_the_tables_has_a_use():
    for config, table in LAYOUTS.values():
        if table is None:
            continue
        ours = abstract(config)
        used = {row.theirs for row in table}
        entries = entries_of(ours, table)
        assert len({entry.theirs for entry in entries}) == len(entries)
        assert sorted(name for entry in entries for name in entry.ours) == sorted(ours)
        assert len(used) == len(table)
