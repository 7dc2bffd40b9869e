"""The config files beside weights, Hugging Face's and open_clip's, in terms of our own config."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from aima_jax.models.config import OPENAI_MEAN, OPENAI_STD, Activation, Channels
from aima_jax.text.tokenizer import CONTEXT_LENGTH, END_TOKEN, VOCABULARY_SIZE

HUGGING_FACE_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
OPEN_CLIP_FILE = "open_clip_config.json"

Json = Mapping[str, Any]
Check = Callable[[Any], Any]


@dataclass(frozen=True)
class StatedConfig:
    """A model's config as stated beside its arrays.

    Attributes:
        source: the file that states it.
        values: by our field, such as "vision.heads", the file's own key and the value. Extra fields
            are "vision.head_width" and "text.head_width": channels per head.
    """

    source: str = ""
    values: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def value(self, name: str, *default: Any) -> Any:
        """The value of a field, or the default if it is not stated."""
        if name not in self.values and default:
            return default[0]
        return self.values[name][1]

    def heads(self, tower: str, width: int) -> int:
        """Attention heads of a tower of this width."""
        if f"{tower}.heads" in self:
            return self.value(f"{tower}.heads")
        return max(width // self.value(f"{tower}.head_width"), 1)


# As hard-coded by OpenAI, and so by IRRA, which starts from OpenAI's weights.
OPENAI_CUSTOM = StatedConfig(
    "OpenAI's code",
    {
        "vision.head_width": ("head_width", 64),
        "text.head_width": ("head_width", 64),
        "vision.activation": ("activation", "quick_gelu"),
        "text.activation": ("activation", "quick_gelu"),
        "vision.pixel_mean": ("mean", OPENAI_MEAN),
        "vision.pixel_std": ("std", OPENAI_STD),
    },
)


class _Reader:
    """The values of a file, and all problems found in it."""

    def __init__(self, source: str, content: Json, where: str):
        self.source, self.content, self.where = source, content, where
        self.values: dict[str, tuple[str, Any]] = {}
        self.problems: list[str] = []

    def at(self, key: str, default: Any = None) -> Any:
        """The value of a key such as "vision_config.hidden_size"; the default also for null."""
        value: Any = self.content
        for part in key.split("."):
            if not isinstance(value, Mapping):
                self.problems.append(f"{key.rpartition('.')[0]} is {value!r}, expected an object")
                return default
            value = value.get(part)
            if value is None:
                return default
        return value

    def take(self, name: str, key: str, check: Check, default: Any = None) -> None:
        """Record the value of one of our fields, if the file has it or there is a default."""
        if (value := self.at(key, default)) is not None:
            self.note(name, key, value, check)

    def note(self, name: str, key: str, value: Any, check: Check) -> None:
        """Record a value for one of our fields."""
        if (checked := check(value)) is None:
            self.problems.append(f"{key} is {value}, expected {check.__doc__}")
        else:
            self.values[name] = (key, checked)

    def expect(self, key: str, default: Any, *allowed: Any) -> None:
        """Check a value that is fixed in our towers."""
        if (value := self.at(key, default)) not in allowed:
            self.problems.append(f"{key} is {value}, expected {' or '.join(map(str, allowed))}")

    def stated(self) -> StatedConfig:
        """All recorded values.

        Raises:
            ValueError: there are problems; the message lists all.
        """
        if self.problems:
            raise ValueError(
                f"{self.source} of {self.where} is not supported by our towers: "
                + "; ".join(dict.fromkeys(self.problems))
            )
        return StatedConfig(self.source, self.values)


# Each returns a valid value in our form, else None; messages quote its docstring as "expected".


def _whole(value: Any) -> int | None:
    """a whole number of 1 or more"""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _layers(value: Any) -> int | tuple[int, ...] | None:
    """a whole number, or four"""
    if isinstance(value, list | tuple):
        return tuple(value) if len(value) == 4 and all(map(_whole, value)) else None
    return _whole(value)


def _side(value: Any) -> tuple[int, int] | None:
    """a side, or height and width"""
    pair = value if isinstance(value, list | tuple) else (value, value)
    return tuple(pair) if len(pair) == 2 and all(map(_whole, pair)) else None


def _number(value: Any) -> float | None:
    """a number"""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if sound else None


def _channels(value: Any) -> Channels | None:
    """a number, or three"""
    three = value if isinstance(value, list | tuple) else (value,) * 3
    red, green, blue = map(_number, three) if len(three) == 3 else (None,) * 3
    return None if red is None or green is None or blue is None else (red, green, blue)


def _deviations(value: Any) -> Channels | None:
    """a number over 0, or three"""
    channels = _channels(value)
    return channels if channels and min(channels) > 0 else None


def _activation(value: Any) -> Activation | None:
    """quick_gelu or gelu"""
    return value if value in get_args(Activation) else None


# Our field, the key in Hugging Face's config.json, its kind, and transformers' default if the
# arrays do not determine it: config.json omits values that equal the default.
_HUGGING_FACE_FIELDS = (
    ("dim", "projection_dim", _whole, None),
    ("image_size", "vision_config.image_size", _side, None),
    ("vision.width", "vision_config.hidden_size", _whole, None),
    ("vision.layers", "vision_config.num_hidden_layers", _whole, None),
    ("vision.mlp_width", "vision_config.intermediate_size", _whole, None),
    ("vision.heads", "vision_config.num_attention_heads", _whole, 12),
    ("vision.activation", "vision_config.hidden_act", _activation, "quick_gelu"),
    ("vision.patch_size", "vision_config.patch_size", _whole, None),
    ("text.width", "text_config.hidden_size", _whole, None),
    ("text.layers", "text_config.num_hidden_layers", _whole, None),
    ("text.mlp_width", "text_config.intermediate_size", _whole, None),
    ("text.heads", "text_config.num_attention_heads", _whole, 8),
    ("text.activation", "text_config.hidden_act", _activation, "quick_gelu"),
    ("text.context_length", "text_config.max_position_embeddings", _whole, None),
)


def read_hugging_face(configs: Mapping[str, Json], where: str) -> StatedConfig:
    """Read config.json and preprocessor_config.json; without them, nothing is stated.

    Args:
        configs: the files by name.
        where: the checkpoint, for messages.

    Raises:
        ValueError: a value is malformed, or not supported by CLIP's towers.
    """
    values: dict[str, tuple[str, Any]] = {}
    if (config := configs.get(HUGGING_FACE_FILE)) is not None:
        reader = _Reader(HUGGING_FACE_FILE, config, where)
        for field_of_ours, key, check, default in _HUGGING_FACE_FIELDS:
            reader.take(field_of_ours, key, check, default)
        reader.expect("text_config.vocab_size", VOCABULARY_SIZE, VOCABULARY_SIZE)
        # 2 stands for the highest id, which is the end of text.
        reader.expect("text_config.eos_token_id", END_TOKEN, END_TOKEN, 2)
        for tower in ("vision", "text"):
            reader.expect(f"{tower}_config.layer_norm_eps", 1e-5, 1e-5)
        values |= reader.stated().values
    if (config := configs.get(PREPROCESSOR_FILE)) is not None:
        reader = _Reader(PREPROCESSOR_FILE, config, where)
        if reader.at("do_normalize", True):
            reader.take("vision.pixel_mean", "image_mean", _channels)
            reader.take("vision.pixel_std", "image_std", _deviations)
        else:
            reader.note("vision.pixel_mean", "do_normalize", 0, _channels)
            reader.note("vision.pixel_std", "do_normalize", 1, _deviations)
        reader.expect("do_rescale", True, True)
        reader.expect("rescale_factor", 1 / 255, 1 / 255)
        values |= reader.stated().values
    return StatedConfig(HUGGING_FACE_FILE, values)


# The same for open_clip, whose defaults apply to everything that a file omits.
_OPEN_CLIP_FIELDS = (
    ("dim", "model_cfg.embed_dim", _whole, None),
    ("image_size", "model_cfg.vision_cfg.image_size", _side, 224),
    ("vision.width", "model_cfg.vision_cfg.width", _whole, 768),
    ("vision.layers", "model_cfg.vision_cfg.layers", _layers, 12),
    ("vision.head_width", "model_cfg.vision_cfg.head_width", _whole, 64),
    ("text.width", "model_cfg.text_cfg.width", _whole, 512),
    ("text.layers", "model_cfg.text_cfg.layers", _whole, 12),
    ("text.heads", "model_cfg.text_cfg.heads", _whole, 8),
    ("text.context_length", "model_cfg.text_cfg.context_length", _whole, CONTEXT_LENGTH),
    ("vision.pixel_mean", "preprocess_cfg.mean", _channels, None),
    ("vision.pixel_std", "preprocess_cfg.std", _deviations, None),
)
# Keys that are read, or that never affect our towers.
_PASSED = {
    "model_cfg": "embed_dim quick_gelu vision_cfg text_cfg custom_text cast_dtype output_dict "
    "init_logit_scale nonscalar_logit_scale",
    "vision_cfg": "image_size width layers head_width patch_size mlp_ratio patch_dropout "
    "output_tokens attn_pooler_queries attn_pooler_heads final_ln_after_pool "
    "timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path",
    "text_cfg": "context_length width heads layers mlp_ratio pad_id eos_id output_tokens "
    "hf_model_pretrained hf_proj_type hf_pooler_type correct_cls_mask",
}
# Values that other keys may have besides null, false and empty ones.
_ALLOWED = {
    "vision_cfg.pool_type": ("tok",),
    "vision_cfg.pos_embed_type": ("learnable", "sin_cos_2d"),  # stored as a table in either case
    "vision_cfg.norm_kwargs": ({"eps": 1e-5},),
    "text_cfg.pool_type": ("argmax", "eos"),
    "text_cfg.proj_type": ("linear",),
    "text_cfg.vocab_size": (VOCABULARY_SIZE,),
    "text_cfg.norm_kwargs": ({"eps": 1e-5},),
}
# Keys of other kinds of models, and their meaning.
_KINDS = {
    "model_cfg.multimodal_cfg": "a CoCa, which has a decoder",
    "model_cfg.init_logit_bias": "a SigLIP",
    "vision_cfg.attentional_pool": "an image tower that pools by attention",
    "vision_cfg.timm_model_name": "an image tower from timm",
    "text_cfg.hf_model_name": "a text tower from transformers",
    "text_cfg.hf_tokenizer_name": "another tokenizer than CLIP's",
    "text_cfg.no_causal_mask": "a text tower without a causal mask",
    "text_cfg.embed_cls": "a text tower with a class token, like CoCa's",
}


def read_open_clip(configs: Mapping[str, Json], where: str) -> StatedConfig:
    """Read open_clip_config.json; without it, nothing is stated.

    For omitted values open_clip's defaults apply: exact GELU, heads of 64 channels in the image
    tower, 8 heads in the text tower, an MLP four times as wide.

    Args:
        configs: the files by name.
        where: the checkpoint, for messages.

    Raises:
        ValueError: a value is malformed, or not supported by CLIP's towers.
    """
    content = configs.get(OPEN_CLIP_FILE)
    if content is None:
        return StatedConfig()
    reader = _Reader(OPEN_CLIP_FILE, content, where)
    for field_of_ours, key, check, default in _OPEN_CLIP_FIELDS:
        reader.take(field_of_ours, key, check, default)
    activation = "quick_gelu" if reader.at("model_cfg.quick_gelu") else "gelu"
    towers = ["text"]
    if not isinstance(reader.at("model_cfg.vision_cfg.layers"), list):  # of a ResNet
        reader.take("vision.patch_size", "model_cfg.vision_cfg.patch_size", _whole, 16)
        towers.append("vision")
    for tower in towers:
        reader.note(f"{tower}.activation", "model_cfg.quick_gelu", activation, _activation)
        key = f"model_cfg.{tower}_cfg.mlp_ratio"
        ratio, (_, width) = reader.at(key, 4.0), reader.values.get(f"{tower}.width", ("", 1))
        mlp_width = int(width * ratio) if _number(ratio) else ratio
        reader.note(f"{tower}.mlp_width", f"{key} × width", mlp_width, _whole)
    for section in _PASSED:
        prefix = "model_cfg" if section == "model_cfg" else f"model_cfg.{section}"
        _check_section(reader, section, reader.at(prefix, {}))
    if reader.at("model_cfg.text_cfg.pool_type") == "eos":
        reader.expect("model_cfg.text_cfg.eos_id", 2, END_TOKEN)
    return reader.stated()


def _check_section(reader: _Reader, section: str, content: Any) -> None:
    """Reject every key of a model that differs from our towers."""
    if not isinstance(content, Mapping):
        reader.problems.append(f"{section} is {content!r}, expected an object")
        return
    for key, value in content.items():
        name = f"{section}.{key}"
        own_tokenizer = key == "hf_tokenizer_name" and str(value).startswith("openai/clip")
        if key in _PASSED[section].split() or value in _ALLOWED.get(name, ()) or own_tokenizer:
            continue
        if value:
            kind = f"{_KINDS[name]}: " if name in _KINDS else ""
            reader.problems.append(f"{kind}{name} is {json.dumps(value)}")
