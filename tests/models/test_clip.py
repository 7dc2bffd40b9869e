"""CLIP against transformers' own, stage by stage, and against PyTorch where that has no CLIP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.convert import load_clip
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh

torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers' CLIP")

MESH = make_mesh(devices=jax.devices()[:1])
# Few layers, but the heads, patches and ratios of each family.
FAMILIES = {
    "ViT-B/32": {"vision": (128, 2, 32), "text": (128, 2), "dim": 64},
    "ViT-B/16": {"vision": (192, 2, 16), "text": (128, 2), "dim": 128},
    "ViT-L/14": {"vision": (256, 2, 14), "text": (192, 2), "dim": 192},
}
SENTENCES = np.zeros((3, 77), np.int32)
for row, length in enumerate((5, 20, 77)):
    SENTENCES[row, :length] = np.random.default_rng(row).integers(1, 49000, length)
    SENTENCES[row, 0], SENTENCES[row, length - 1] = 49406, 49407


def their_clip(family, image_size=224, seed=0):
    vision, text, dim = (FAMILIES[family][key] for key in ("vision", "text", "dim"))

    def shape(width, layers):
        return {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "intermediate_size": 4 * width,
        }

    config = transformers.CLIPConfig(
        vision_config=shape(*vision[:2]) | {"patch_size": vision[2], "image_size": image_size},
        text_config=shape(*text),
        projection_dim=dim,
    )
    torch.manual_seed(seed)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():  # biases and norms are 0 and 1 at first, which would hide mistakes
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def convert(model, folder, *, mesh=MESH, **arguments):
    model.save_pretrained(folder)
    return load_clip(folder, mesh=mesh, **arguments)


def pictures(*size, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *size, 3)).astype(np.float32)


def assert_close(ours, theirs, tolerance=1e-5):
    """Largest difference relative to the largest value of the stage."""
    ours, theirs = np.asarray(ours, np.float64), theirs.detach().numpy().astype(np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@nnx.jit
def image_stages(clip, images):
    stages = [clip.vision.embed(images)]
    stages.append(clip.vision.pre_norm(stages[-1]))
    for block in clip.vision.blocks:
        stages.append(block(stages[-1]))
    return [*stages, clip.vision.post_norm(stages[-1]), *clip.encode_image(images)]


@nnx.jit
def text_stages(clip, sentences):
    stages = [clip.text.embed(sentences)]
    for block in clip.text.blocks:
        stages.append(block(stages[-1]))
    return [*stages, clip.text.final_norm(stages[-1]), *clip.encode_text(sentences)]


def check_image_stages(clip, model, embedded, images):
    """Each stage of the image tower, from the embedding that PyTorch computed on."""
    vision = model.vision_model
    stages = [embedded, vision.pre_layrnorm(embedded)]
    for block in vision.encoder.layers:
        stages.append(block(stages[-1], None))
    stages.append(vision.post_layernorm(stages[-1]))
    tokens = model.visual_projection(stages[-1])
    theirs = [*stages, tokens[:, 0], tokens]
    for ours, their in zip(image_stages(clip, images), theirs, strict=True):
        assert_close(ours, their)


@pytest.mark.parametrize(("family", "side"), [*((f, 224) for f in FAMILIES), ("ViT-L/14", 336)])
def test_every_image_stage_equals_transformers(family, side, tmp_path):
    model = their_clip(family, side)
    _, clip = convert(model, tmp_path, image_size=(side, side))
    images = pictures(side, side)
    with torch.no_grad():
        pixels = torch.tensor(images).permute(0, 3, 1, 2)
        embedded = model.vision_model.embeddings(pixels)
        check_image_stages(clip, model, embedded, images)
        pooled = model.vision_model(pixels).pooler_output
        assert_close(image_stages(clip, images)[-2], model.visual_projection(pooled))


@pytest.mark.parametrize(
    ("image_size", "stride", "resize"),
    [
        ((224, 224), 12, "bilinear"),
        ((384, 128), 16, "bilinear"),
        ((384, 128), 12, "bicubic"),
        ((97, 61), 16, "bicubic"),
        ((97, 61), 12, "bilinear"),
    ],
)
def test_image_sizes_and_strides_that_transformers_lacks(image_size, stride, resize, tmp_path):
    model = their_clip("ViT-B/16")
    _, clip = convert(
        model, tmp_path, image_size=image_size, patch_stride=stride, position_resize=resize
    )
    images = pictures(*image_size)
    embeddings = model.vision_model.embeddings
    with torch.no_grad():
        pixels = torch.tensor(images).permute(0, 3, 1, 2)
        kernel = embeddings.patch_embedding.weight
        patches = torch.nn.functional.conv2d(pixels, kernel, stride=stride)
        table = embeddings.position_embedding.weight
        square = table[1:].reshape(14, 14, -1).permute(2, 0, 1)[None]
        square = torch.nn.functional.interpolate(
            square, size=patches.shape[2:], mode=resize, align_corners=False
        )
        first = (embeddings.class_embedding + table[0]).expand(2, 1, -1)
        embedded = torch.cat([first, (patches + square).flatten(2).transpose(1, 2)], dim=1)
        check_image_stages(clip, model, embedded, images)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_text_stage_equals_transformers(family, tmp_path):
    model = their_clip(family)
    _, clip = convert(model, tmp_path)
    sentences = torch.tensor(SENTENCES)
    with torch.no_grad():
        output = model.text_model(sentences, output_hidden_states=True)
        theirs = [
            *output.hidden_states,
            output.last_hidden_state,
            model.text_projection(output.pooler_output),
            model.text_projection(output.last_hidden_state),
        ]
    for ours, their in zip(text_stages(clip, SENTENCES), theirs, strict=True):
        assert_close(ours, their)


@pytest.mark.parametrize("mesh", [MESH, None], ids=["this platform", "plain"])
def test_gradients_through_both_towers_equal_pytorch(mesh, tmp_path):
    model = their_clip("ViT-B/16", image_size=64)
    _, clip = convert(model, tmp_path, image_size=(64, 64), mesh=mesh)
    images = pictures(64, 64)
    target = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)

    @nnx.jit
    @nnx.grad
    def gradients(clip):
        image = clip.encode_image(jnp.asarray(images))[0]
        text = clip.encode_text(jnp.asarray(SENTENCES))[0]
        return jnp.sum(jnp.tanh(image @ text.T / 100) * target)

    pixels = torch.tensor(images).permute(0, 3, 1, 2)
    image = model.visual_projection(model.vision_model(pixels).pooler_output)
    text = model.text_projection(model.text_model(torch.tensor(SENTENCES)).pooler_output)
    (torch.tanh(image @ text.T / 100) * torch.tensor(target)).sum().backward()
    for parameter in model.parameters():
        parameter.data = parameter.data if parameter.grad is None else parameter.grad
    _, theirs = convert(model, tmp_path / "gradients", image_size=(64, 64))

    ours, theirs = flatten(gradients(clip)), flatten(theirs)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        # The same shift of all keys changes no softmax: the gradient of their bias is rounding.
        scale = theirs[name.replace("key.bias", "query.bias")]
        assert jnp.max(jnp.abs(ours[name] - expected)) <= 1e-4 * jnp.max(jnp.abs(scale)), name
