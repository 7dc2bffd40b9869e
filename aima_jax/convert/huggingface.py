"""Folders that `transformers.CLIPModel.from_pretrained` loads."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from aima_jax.convert.layouts import HUGGING_FACE, entries_of
from aima_jax.convert.weights import write_safetensors
from aima_jax.files import atomic_write, user_path
from aima_jax.models import CLIP, CLIPConfig, ViTConfig
from aima_jax.parameters import flatten
from aima_jax.text import tokenizer


def save_clip(clip: CLIP, folder: str | pathlib.Path, *, temperature: float = 0.01) -> None:
    """Write a CLIP as transformers reads it: config, weights, tokenizer and preprocessor.

    Args:
        clip: a vision transformer on square images whose patches neither overlap nor leave gaps.
        folder: made if need be; files of the same names are replaced.
        temperature: of the similarities; transformers stores the logarithm of its inverse.

    Raises:
        ValueError: transformers cannot express the model.
    """
    config = clip.config
    _check_expressible(config)
    params = flatten(clip)
    arrays = {"logit_scale": np.array(-math.log(temperature), np.float32)}
    for entry in entries_of(params, HUGGING_FACE):
        array = entry.join([np.asarray(params[name]) for name in entry.ours])
        arrays[entry.theirs] = np.ascontiguousarray(array)

    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _texts(config).items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    # Last, and at once: a folder without weights is refused wherever it is loaded.
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})


def _check_expressible(config: CLIPConfig) -> None:
    vision, (height, width) = config.vision, config.image_size
    if not isinstance(vision, ViTConfig):
        problem = "a ResNet as image tower"
    elif height != width:
        problem = f"images of {height} × {width} pixels, which are not squares"
    elif vision.patch_stride != vision.patch_size:
        problem = f"patches of {vision.patch_size} pixels at a stride of {vision.patch_stride}"
    else:
        return
    raise ValueError(
        f"transformers' CLIP cannot express {problem}; save_aima (aima convert aima) "
        "writes any model to one file"
    )


def _texts(config: CLIPConfig) -> dict[str, str]:
    """The files beside the weights."""
    vocabulary, pairs = tokenizer.vocabulary()
    merges = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    contents = {
        "config.json": _model_config(config),
        "preprocessor_config.json": _preprocessor(config),
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": config.text.context_length,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        "vocab.json": vocabulary,
    }
    texts = {name: json.dumps(content, indent=2) for name, content in contents.items()}
    return texts | {"merges.txt": "\n".join(merges) + "\n"}


def _model_config(config: CLIPConfig) -> dict[str, Any]:
    def tower(kind: str) -> dict[str, Any]:
        shape = getattr(config, kind)
        return {
            "model_type": f"clip_{kind}_model",
            "hidden_size": shape.width,
            "intermediate_size": shape.mlp_width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "hidden_act": shape.activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": config.dim,
        }

    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "dtype": "float32",
        "projection_dim": config.dim,
        "text_config": tower("text")
        | {
            "vocab_size": config.text.vocabulary,
            "max_position_embeddings": config.text.context_length,
            "bos_token_id": tokenizer.START_TOKEN,
            "eos_token_id": tokenizer.END_TOKEN,
            "pad_token_id": tokenizer.END_TOKEN,
        },
        "vision_config": tower("vision")
        | {
            "image_size": config.image_size[0],
            "patch_size": config.vision.patch_size,
            "num_channels": 3,
        },
    }


def _preprocessor(config: CLIPConfig) -> dict[str, Any]:
    """Resizing to a square without cropping, as this project shows pictures to the model."""
    height, width = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.vision.pixel_mean),
        "image_std": list(config.vision.pixel_std),
    }
