"""CLIP's ModifiedResNet against an independent one in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aima_jax.convert import load_clip
from aima_jax.parameters import flatten, statistic_names
from aima_jax.sharding import make_mesh

torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
import openai_reference as reference  # noqa: E402


def their_clip(layers=(2, 1, 2, 1), grid=(2, 2), dim=64, width=32):
    torch.manual_seed(0)
    visual = reference.ModifiedResNet(grid, width, layers, dim)
    return reference.randomise(reference.CLIP(visual, 64, 1, dim))


def convert(model, folder, **arguments):
    torch.save(model.state_dict(), folder / "resnet.pt")
    mesh = make_mesh(devices=jax.devices()[:1])
    told = {"activation": "quick_gelu", "vision_heads": model.visual.attnpool.heads}
    return load_clip(folder / "resnet.pt", mesh=mesh, text_heads=1, **told, **arguments)


def assert_close(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@nnx.jit
def stages(clip, images):
    outputs = [clip.vision.stem(images)]
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = outputs[-1]
        for block in getattr(clip.vision, name):
            x = block(x)
        outputs.append(x)
    return [*outputs, *clip.encode_image(images)]


@pytest.mark.parametrize(
    ("width", "image_size"),  # of RN50 and RN101, of RN50x4, and a narrow one
    [(64, (224, 224)), (80, (97, 61)), (32, (384, 128))],
)
def test_every_stage_equals_pytorch(width, image_size, tmp_path):
    theirs = their_clip(width=width)
    config, clip = convert(theirs, tmp_path, image_size=image_size)
    assert config.vision.layers == (2, 1, 2, 1)
    assert (config.vision.width, config.vision.heads) == (width, width // 2)
    images = np.random.default_rng(0).normal(size=(2, *image_size, 3)).astype(np.float32)
    visual = theirs.visual
    with torch.no_grad():
        x = torch.tensor(images).permute(0, 3, 1, 2)
        for n in "123":
            x = torch.relu(getattr(visual, f"bn{n}")(getattr(visual, f"conv{n}")(x)))
        expected = [torch.nn.functional.avg_pool2d(x, 2)]
        for n in "1234":
            expected.append(getattr(visual, f"layer{n}")(expected[-1]))
        table = visual.attnpool.positional_embedding
        square = table[1:].reshape(2, 2, -1).permute(2, 0, 1)[None]
        square = torch.nn.functional.interpolate(
            square, size=expected[-1].shape[2:], mode="bilinear", align_corners=False
        )
        positions = torch.cat([table[:1], square[0].flatten(1).T])
        tokens = visual.attnpool(expected[-1], positions)
    for ours, their in zip(stages(clip, images)[:-2], expected, strict=True):
        assert_close(ours.transpose(0, 3, 1, 2), their)
    features, our_tokens = stages(clip, images)[-2:]
    assert_close(our_tokens, tokens)
    assert_close(features, tokens[:, 0])
    assert_close(nnx.jit(lambda clip, x: clip.image_features(x))(clip, images), tokens[:, 0])


def test_gradients_equal_pytorch(tmp_path):
    model = their_clip(layers=(1, 1, 1, 1))
    _, clip = convert(model, tmp_path, image_size=(64, 64))
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(2, 5, 64)).astype(np.float32)

    @nnx.jit
    @nnx.grad
    def gradients(clip):
        return jnp.sum(jnp.tanh(clip.encode_image(images)[1]) * weights)

    tokens = model.visual(torch.tensor(images).permute(0, 3, 1, 2))
    (torch.tanh(tokens) * torch.tensor(weights)).sum().backward()
    for parameter in model.parameters():
        parameter.data = parameter.data if parameter.grad is None else parameter.grad
    _, theirs = convert(model, tmp_path, image_size=(64, 64))

    ours, theirs = flatten(gradients(clip)), flatten(theirs)
    statistics = statistic_names(clip)
    assert statistics == {name for name in theirs if name.endswith((".mean", ".variance"))}
    assert ours.keys() == theirs.keys() - statistics
    for name in (name for name in ours if name.startswith("vision.")):
        scale = jnp.max(jnp.abs(theirs[name.replace("key.bias", "query.bias")]))
        assert jnp.max(jnp.abs(ours[name] - theirs[name])) <= 1e-4 * scale, name
