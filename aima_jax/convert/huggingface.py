"""transformers' CLIP: folders in its format, and a comparison of a converted CLIP with it."""

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from aima_jax.convert.layouts import HUGGING_FACE, entries_of
from aima_jax.convert.load import load_clip
from aima_jax.convert.sidecars import HUGGING_FACE_FILE, PREPROCESSOR_FILE
from aima_jax.convert.weights import open_weights, write_safetensors
from aima_jax.files import atomic_write, user_path
from aima_jax.models import CLIP, CLIPConfig, ViTConfig
from aima_jax.models.clip import VisionTransformer
from aima_jax.models.layers import normalize
from aima_jax.parameters import flatten
from aima_jax.text import tokenizer
from aima_jax.text.tokenizer import END_TOKEN, MASK_TOKEN, START_TOKEN


def save_clip(clip: CLIP, folder: str | pathlib.Path, *, temperature: float = 0.01) -> None:
    """Write a CLIP in transformers' format: config, weights, tokenizer and preprocessor.

    Args:
        clip: a vision transformer on square images whose patches neither overlap nor leave gaps.
        folder: created if necessary; files of the same names are replaced.
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
    # Last and atomically: every loader refuses a folder without weights.
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})


def _check_expressible(config: CLIPConfig) -> None:
    vision, (height, width) = config.vision, config.image_size
    if not isinstance(vision, ViTConfig):
        problem = "a ResNet as image tower"
    elif height != width:
        problem = f"images of {height} × {width} pixels, which are not square"
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
    assert isinstance(config.vision, ViTConfig)

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
    """Resizing to a square without cropping, as in this project."""
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


def verify(name_or_path: str | pathlib.Path, *, seed: int = 0) -> dict[str, float]:
    """Measure the differences of our stages from transformers', on random pictures and sentences.

    transformers' own image processor normalises the pictures for its model, so that a wrong mean or
    deviation is detected like a wrong weight. Needs PyTorch.

    Args:
        name_or_path: a Hugging Face id, or a folder in that layout.
        seed: of the pictures and sentences.

    Returns:
        For each stage of both towers the largest difference relative to the stage's largest value;
        in float32 about 1e-6.

    Raises:
        FileNotFoundError: there is no such checkpoint, or no network to fetch it.
        ValueError: PyTorch is missing, or the checkpoint is not Hugging Face's CLIP.
    """
    try:
        import torch
        import transformers
    except ImportError:
        raise ValueError(
            "verify runs transformers' CLIP, which needs PyTorch: pip install torch transformers"
        ) from None
    path = user_path(name_or_path)
    folder = path if path.is_dir() else path.parent
    if path.exists() and not (folder / HUGGING_FACE_FILE).exists():
        raise ValueError(
            f"{path}: transformers reads CLIP only from its own layout, config.json and weights in "
            "a folder: only ViTs, not OpenAI's or open_clip's files"
        )
    path = open_weights(name_or_path).path
    config, clip = load_clip(path, image_size=None)
    theirs = transformers.CLIPModel.from_pretrained(path.parent, dtype=torch.float32).eval()
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, (2, *config.image_size, 3), np.uint8)
    mean, std = config.vision.pixel_mean, config.vision.pixel_std
    images = np.asarray(normalize(jnp.asarray(pictures), mean, std))
    pixels = _processor(path.parent)(
        list(pictures), do_resize=False, do_center_crop=False, return_tensors="pt"
    )["pixel_values"]
    tokens = np.zeros((3, config.text.context_length), np.int32)
    for row, length in zip(tokens, (2, 20, config.text.context_length), strict=True):
        row[:length] = generator.integers(1, MASK_TOKEN, length)
        row[0], row[length - 1] = START_TOKEN, END_TOKEN
    with jax.default_matmul_precision("highest"):  # GPUs and TPUs round products by default
        stages = _our_stages(clip, jnp.asarray(images), jnp.asarray(tokens))
        ours = jax.device_get(stages) | {"pixels": images}
    with torch.no_grad():
        expected = {"pixels": pixels.permute(0, 2, 3, 1)}
        expected |= _their_stages(theirs, pixels, torch.tensor(tokens).long())
    return {
        name: float(np.abs(ours[name] - stage.numpy()).max() / np.abs(stage.numpy()).max())
        for name, stage in expected.items()
    }


@nnx.jit
def _our_stages(
    clip: CLIP,
    images: Float[Array, "batch height width 3"],
    tokens: Int[Array, "sentences tokens"],
) -> dict[str, Array]:
    tower = clip.vision
    assert isinstance(tower, VisionTransformer)
    stages = {"image embedding": tower.embed(images)}
    x = stages["image pre-norm"] = tower.pre_norm(stages["image embedding"])
    for number, block in enumerate(tower.blocks):
        x = stages[f"image block {number}"] = block(x)
    stages["image final norm"] = tower.post_norm(x)[:, 0]
    stages["image features"] = clip.encode_image(images)[0]
    x = stages["text embedding"] = clip.text.embed(tokens)
    for number, block in enumerate(clip.text.blocks):
        x = stages[f"text block {number}"] = block(x)
    stages["text final norm"] = clip.text.final_norm(x)
    stages["text features"] = clip.encode_text(tokens)[0]
    return {name: stage.astype(jnp.float32) for name, stage in stages.items()}


def _processor(folder: pathlib.Path):
    """transformers' image processor of a model; the default one if the folder has none."""
    import transformers

    if (folder / PREPROCESSOR_FILE).exists():
        return transformers.CLIPImageProcessor.from_pretrained(folder)
    return transformers.CLIPImageProcessor()


def _their_stages(model, pixels, tokens) -> dict:
    image = model.vision_model(pixels, output_hidden_states=True)
    text = model.text_model(tokens, output_hidden_states=True)
    stages = {
        "image embedding": model.vision_model.embeddings(pixels),
        "image pre-norm": image.hidden_states[0],
    }
    for number, state in enumerate(image.hidden_states[1:]):
        stages[f"image block {number}"] = state
    stages["image final norm"] = image.pooler_output
    stages["image features"] = model.visual_projection(image.pooler_output)
    stages["text embedding"] = text.hidden_states[0]
    for number, state in enumerate(text.hidden_states[1:]):
        stages[f"text block {number}"] = state
    stages["text final norm"] = text.last_hidden_state
    stages["text features"] = model.text_projection(text.pooler_output)
    return stages
