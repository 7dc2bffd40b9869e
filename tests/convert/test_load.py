"""CLIPs of open_clip: every kind with our towers is read as it is, every other one is refused."""

import json

import numpy as np
import pytest
from flax import nnx

from aima_jax.convert import load_clip

torch = pytest.importorskip("torch", reason="the reference is open_clip's definition in PyTorch")
import openai_reference as reference  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

OPENAI_PIXELS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALVES = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
DIM = 64
# Of each kind two layers of small width, with its channels of a head, its MLP, activation, pooling
# and pixels: the fields of its open_clip_config.json, as far as they are not defaults.
KINDS = {
    "LAION ViT-H/14": {"vision": {"width": 160, "head_width": 80, "patch_size": 14}},
    "LAION ViT-g/14": {
        "vision": {"width": 176, "head_width": 88, "patch_size": 14, "mlp_ratio": 4.3637}
    },
    "LAION ViT-bigG/14": {
        "vision": {"width": 208, "head_width": 104, "patch_size": 14, "mlp_ratio": 4.9231}
    },
    "LAION ViT-L/14": {"vision": {"width": 128, "patch_size": 14}, "pixels": HALVES},
    "DataComp ViT-B/16": {"vision": {"width": 128, "patch_size": 16}},
    "DFN ViT-H/14": {
        "vision": {"width": 160, "head_width": 80, "patch_size": 14},
        "model": {"quick_gelu": True},
    },
    "MetaCLIP ViT-B/32": {"vision": {"width": 128}, "model": {"quick_gelu": True}},
    "custom text, end of text": {
        "vision": {"width": 128},
        "text": {"pool_type": "eos", "eos_id": 49407, "mlp_ratio": 3.0},
        "model": {"custom_text": True},
    },
    "CC12M RN50": {"vision": {"width": 32, "layers": [1, 2, 1, 1]}},
}


def open_clip_config(kind):
    vision = {"patch_size": 32, "layers": 2} | KINDS[kind]["vision"]
    vision["image_size"] = 64 if "RN" in kind else 2 * vision["patch_size"]
    if "RN" in kind:
        del vision["patch_size"]
    text = {"width": 96, "heads": 3, "layers": 2} | KINDS[kind].get("text", {})
    model = {"embed_dim": DIM, "vision_cfg": vision, "text_cfg": text}
    mean, std = KINDS[kind].get("pixels", OPENAI_PIXELS)
    pixels = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": model | KINDS[kind].get("model", {}), "preprocess_cfg": pixels}


def their_clip(config):
    """A random model of an open_clip config, from open_clip's definition of its fields."""
    model = config["model_cfg"]
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = reference.QuickGELU if model.get("quick_gelu") else torch.nn.GELU
    torch.manual_seed(0)
    if isinstance(vision["layers"], list):
        visual = reference.ModifiedResNet((2, 2), vision["width"], vision["layers"], DIM)
    else:
        visual = reference.VisionTransformer(
            (2, 2),
            vision["patch_size"],
            vision["patch_size"],
            vision["width"],
            vision["layers"],
            DIM,
            heads=vision["width"] // vision.get("head_width", 64),
            mlp_ratio=vision.get("mlp_ratio", 4.0),
            activation=activation,
        )
    clip = reference.CLIP(
        visual,
        text["width"],
        text["layers"],
        DIM,
        heads=text["heads"],
        mlp_ratio=text.get("mlp_ratio", 4.0),
        activation=activation,
    )
    return reference.randomise(clip)


def save(clip, config, folder, *, torch_file=False):
    state = clip.state_dict()
    if config["model_cfg"].get("custom_text"):
        outside = ("visual.", "logit_scale")
        state = {k if k.startswith(outside) else f"text.{k}": v for k, v in state.items()}
    if torch_file:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        state = {name: x.contiguous() for name, x in state.items()}
        save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def deviation(ours, theirs):
    theirs = theirs.numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_with_our_towers_computes_as_its_definition(kind, tmp_path):
    said = open_clip_config(kind)
    theirs = their_clip(said)
    torch_file = kind in ("MetaCLIP ViT-B/32", "CC12M RN50")
    save(theirs, said, tmp_path, torch_file=torch_file)
    config, clip = load_clip(tmp_path, image_size=None)
    mean, std = said["preprocess_cfg"]["mean"], said["preprocess_cfg"]["std"]
    assert (config.vision.pixel_mean, config.vision.pixel_std) == (tuple(mean), tuple(std))
    side = said["model_cfg"]["vision_cfg"]["image_size"]
    assert config.image_size == (side, side)

    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, side, side, 3)).astype(np.float32)
    tokens = np.zeros((3, 77), np.int32)
    for row, length in zip(tokens, (2, 9, 77), strict=True):
        row[:length] = [49406, *generator.integers(1, 49000, length - 2), 49407]
    with torch.no_grad():
        image = theirs.visual(torch.tensor(images).permute(0, 3, 1, 2))[:, 0]
        encoded = theirs.encode_text(torch.tensor(tokens).long())
        text = encoded[torch.arange(3), torch.tensor(tokens).argmax(dim=-1)]
    encode = nnx.jit(lambda clip: (clip.encode_image(images)[0], clip.encode_text(tokens)[0]))
    ours = encode(clip)
    assert deviation(ours[0], image) < 1e-5
    assert deviation(ours[1], text) < 1e-5

    if kind == "LAION ViT-L/14":  # the comparison sees an activation that is not the model's
        _, wrong = load_clip(tmp_path, image_size=None, activation="quick_gelu")
        features = encode(wrong)
        assert min(deviation(features[0], image), deviation(features[1], text)) > 1e-3


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model_cfg", "multimodal_cfg", {"layers": 2}, "a CoCa"),
        ("vision_cfg", "attentional_pool", True, "an image tower that pools by attention"),
        ("vision_cfg", "timm_model_name", "vit_base", "an image tower from timm"),
        ("vision_cfg", "no_ln_pre", True, "vision_cfg.no_ln_pre"),
        ("vision_cfg", "pool_type", "avg", 'vision_cfg.pool_type is "avg"'),
        ("vision_cfg", "ls_init_value", 1e-5, "vision_cfg.ls_init_value"),
        ("vision_cfg", "norm_kwargs", {"eps": 1e-6}, "vision_cfg.norm_kwargs"),
        ("text_cfg", "no_causal_mask", True, "a text tower without a causal mask"),
        ("text_cfg", "hf_model_name", "roberta-base", "a text tower from transformers"),
        ("text_cfg", "hf_tokenizer_name", "bert-base", "another tokenizer than CLIP's"),
        ("text_cfg", "embed_cls", True, "a text tower with a class token"),
        ("text_cfg", "pool_type", "last", 'text_cfg.pool_type is "last"'),
        ("text_cfg", "pool_type", "eos", "text_cfg.eos_id is 2, expected 49407"),
        ("text_cfg", "vocab_size", 32000, "text_cfg.vocab_size is 32000"),
        ("text_cfg", "act_kwargs", {"approximate": "tanh"}, "text_cfg.act_kwargs"),
        ("text_cfg", "of_a_later_version", 3, "text_cfg.of_a_later_version"),
        ("vision_cfg", "head_width", "80", "vision_cfg.head_width is 80, expected a whole number"),
        ("vision_cfg", "width", 192, "vision_cfg.width is 192, expected 128"),
        ("vision_cfg", "mlp_ratio", 5, "mlp_ratio × width is 640, expected 512"),
        ("text_cfg", "layers", 3, "text_cfg.layers is 3, expected 2"),
        ("model_cfg", "embed_dim", 32, "embed_dim is 32, expected 64"),
        ("preprocess_cfg", "mean", [0.5, 0.5], r"preprocess_cfg.mean is \[0.5, 0.5\], expected"),
        ("preprocess_cfg", "std", 0, "preprocess_cfg.std is 0, expected a number over 0"),
        ("model_cfg", "text_cfg", 7, "text_cfg is 7, expected an object"),
    ],
)
def test_other_kinds_and_contradictions_are_refused_by_name(section, key, value, message, folder):
    config = open_clip_config("DataComp ViT-B/16")
    sections = config | config["model_cfg"] | {"model_cfg": config["model_cfg"]}
    sections[section][key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as refused:
        load_clip(folder)
    assert "open_clip_config.json" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    config = open_clip_config("DataComp ViT-B/16")
    save(their_clip(config), config, folder)
    return folder
