"""Weights to and from PyTorch: its files, transformers' models, IRRA's checkpoints."""

import json

import numpy as np
import pytest
from flax import nnx

from aima_jax.cli import main
from aima_jax.convert import load_clip, load_irra, save_clip
from aima_jax.convert.huggingface import verify
from aima_jax.models import resize_positions
from aima_jax.parameters import flatten
from aima_jax.text import tokenize

torch = pytest.importorskip("torch", reason="PyTorch's files need PyTorch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers' CLIP")
import openai_reference as reference  # noqa: E402


@pytest.fixture(scope="module")
def hugging_face():
    def shape(width, layers):
        return {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "intermediate_size": 3 * width,
        }

    config = transformers.CLIPConfig(
        vision_config=shape(64, 2) | {"patch_size": 8, "image_size": 35},
        text_config=shape(64, 1),
        projection_dim=32,
    )
    return reference.randomise(transformers.CLIPModel(config))


# What a state dict in OpenAI's layout does not tell.
TOLD = {"activation": "quick_gelu", "vision_heads": 1, "text_heads": 1}


@pytest.fixture(scope="module")
def openai():
    torch.manual_seed(0)
    visual = reference.VisionTransformer((4, 4), 8, 8, 64, 2, 64)
    return reference.randomise(reference.CLIP(visual, 64, 1, 64))


def assert_same(ours, other):
    ours, other = flatten(ours), flatten(other)
    assert ours.keys() == other.keys()
    for name, array in ours.items():
        assert np.array_equal(array, other[name]), name


def test_a_model_goes_to_transformers_and_comes_back_bit_for_bit(hugging_face, tmp_path):
    hugging_face.save_pretrained(tmp_path / "theirs")
    config, clip = load_clip(tmp_path / "theirs", image_size=None)
    assert config.image_size == (35, 35)
    save_clip(clip, tmp_path / "ours")
    back = transformers.CLIPModel.from_pretrained(tmp_path / "ours")
    expected = hugging_face.state_dict()
    for name, tensor in back.state_dict().items():
        if name != "logit_scale":
            assert torch.equal(tensor, expected[name]), name
    assert back.logit_scale.item() == pytest.approx(np.log(100))
    assert_same(clip, load_clip(tmp_path / "ours", image_size=None)[1])


def test_what_is_saved_works_in_transformers_from_text_and_picture_on(hugging_face, tmp_path):
    hugging_face.save_pretrained(tmp_path / "theirs")
    _, clip = load_clip(tmp_path / "theirs", image_size=None)
    save_clip(clip, tmp_path / "ours")
    model = transformers.CLIPModel.from_pretrained(tmp_path / "ours")
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path / "ours")
    sentences = ["a woman with a red skirt", "it's 2 men's hats, é"]
    generator = np.random.default_rng(0)
    exact = generator.integers(0, 256, (35, 35, 3), np.uint8)  # of the model's own size
    pictures = [exact, generator.integers(0, 256, (50, 20, 3), np.uint8)]
    batch = processor(text=sentences, images=pictures, return_tensors="pt", padding=True)
    tokens = tokenize(sentences)
    for row, mask, ours in zip(batch["input_ids"], batch["attention_mask"], tokens, strict=True):
        assert row[mask.bool()].tolist() == ours[ours > 0].tolist()
    assert batch["pixel_values"].shape == (2, 3, 35, 35)
    with torch.no_grad():
        output = model(**batch)
    text = clip.encode_text(tokens)[0]
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    np.testing.assert_allclose(text, output.text_embeds, rtol=1e-4, atol=1e-5)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    image = clip.encode_image(((exact[None] / 255 - mean) / std).astype(np.float32))[0][0]
    np.testing.assert_allclose(
        image / np.linalg.norm(image), output.image_embeds[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("file", ["pytorch_model.bin", "old.bin"])
def test_hugging_face_weights_in_pytorch_s_format(file, hugging_face, tmp_path):
    hugging_face.save_pretrained(tmp_path)
    _, expected = load_clip(tmp_path, image_size=None)
    (tmp_path / "model.safetensors").unlink()
    zipped = file != "old.bin"
    torch.save(hugging_face.state_dict(), tmp_path / file, _use_new_zipfile_serialization=zipped)
    _, clip = load_clip(tmp_path if zipped else tmp_path / file, image_size=None)
    assert_same(expected, clip)


def test_openai_s_layout_in_every_wrapping(openai, tmp_path):
    images = torch.randn(2, 3, 32, 32)
    torch.save(openai.state_dict(), tmp_path / "plain.pt")
    _, clip = load_clip(tmp_path / "plain.pt", image_size=None, **TOLD)
    with torch.no_grad():
        expected = openai.visual(images)
    _, tokens = clip.encode_image(images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-5)

    parallel = {f"module.{name}": x for name, x in openai.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": parallel}, tmp_path / "parallel.pt")
    assert_same(clip, load_clip(tmp_path / "parallel.pt", image_size=None, **TOLD)[1])

    half = {name: x.half() for name, x in openai.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    _, widened = load_clip(tmp_path / "half.pt", image_size=None, **TOLD)
    for name, x in flatten(widened).items():
        assert np.array_equal(x, np.asarray(flatten(clip)[name], np.float16).astype(np.float32))


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_torchscript_archive_needs_trust(openai, tmp_path):
    class Archive(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, module in openai.named_children():
                setattr(self, name, module)
            self.positional_embedding = openai.positional_embedding
            self.text_projection = openai.text_projection
            self.logit_scale = openai.logit_scale
            self.register_buffer("input_resolution", torch.tensor(32))

        def forward(self, images):
            return self.visual(images)

    torch.jit.trace(Archive().eval(), torch.randn(1, 3, 32, 32)).save(tmp_path / "ViT.pt")
    with pytest.raises(ValueError, match="trust_weights=True"):
        load_clip(tmp_path / "ViT.pt")
    torch.save(openai.state_dict(), tmp_path / "plain.pt")
    _, expected = load_clip(tmp_path / "plain.pt", **TOLD)
    _, clip = load_clip(tmp_path / "ViT.pt", trust_weights=True, **TOLD)
    assert_same(expected, clip)


class Dangerous:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_damaged_and_dangerous_files_of_pytorch_are_refused(openai, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save({"model": openai.state_dict(), "extra": Dangerous()}, path)
    with pytest.raises(ValueError, match="could run code"):
        load_clip(path)
    assert "never" not in capsys.readouterr().out
    torch.save(openai.state_dict(), path)
    sound = path.read_bytes()
    middle = len(sound) // 2
    altered = sound[:middle] + b"altered on the way" + sound[middle + 18 :]
    for content in (sound[:middle], altered, sound[:100], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights.pt is (truncated or )?damaged"):
            load_clip(path)
    for content in ([1, 2], {"a": 1}, {"model": "ViT"}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="not contain a state dict"):
            load_clip(path)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("old", "new"), [((7, 7), (24, 8)), ((14, 14), (6, 3)), ((3, 5), (5, 3))])
def test_positions_are_resized_as_pytorch_does_it(method, old, new):
    table = np.random.default_rng(0).normal(size=(1 + old[0] * old[1], 6)).astype(np.float32)
    square = torch.tensor(table[1:].reshape(1, *old, 6)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(square, size=new, mode=method, align_corners=False)
    resized = np.asarray(resize_positions(table, old, new, method))
    assert np.array_equal(resized[0], table[0])
    np.testing.assert_allclose(resized[1:], expected[0].flatten(1).T, rtol=0, atol=5e-6)


def test_verify_finds_agreement_and_disagreement(hugging_face, tmp_path, capsys, monkeypatch):
    hugging_face.save_pretrained(tmp_path)
    differences = verify(tmp_path)
    assert len(differences) == 5 + 2 + 3 + 1  # stages around the blocks, and the blocks
    assert max(differences.values()) < 1e-5
    assert main(["convert", "verify", str(tmp_path)]) == 0
    assert "image block 1" in capsys.readouterr().out
    for word in ({"activation": "gelu"}, {"pixel_mean": (0.5, 0.5, 0.5)}, {"vision_heads": 4}):

        def wrong(path, image_size, word=word):
            return load_clip(path, image_size=image_size, **word)

        monkeypatch.setattr("aima_jax.convert.huggingface.load_clip", wrong)
        assert main(["convert", "verify", str(tmp_path)]) == 2
        printed = capsys.readouterr()
        assert "stages differ" in printed.err


@pytest.mark.parametrize("file", ["processor", "said"])
def test_verify_normalises_pictures_as_transformers_own_processor(file, hugging_face, tmp_path):
    hugging_face.save_pretrained(tmp_path)
    halves = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]}
    if file == "processor":
        transformers.CLIPImageProcessor(**halves).save_pretrained(tmp_path)
    else:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    config, _ = load_clip(tmp_path, image_size=None)
    expected = ((0.5,) * 3, (0.5, 0.25, 0.5)) if file == "processor" else ((0.0,) * 3, (1.0,) * 3)
    assert (config.vision.pixel_mean, config.vision.pixel_std) == expected
    assert max(verify(tmp_path).values()) < 1e-5


def test_verify_says_what_transformers_cannot_read(openai, hugging_face, tmp_path):
    torch.manual_seed(0)
    visual = reference.ModifiedResNet((2, 2), 16, (1, 1, 1, 1), 64)
    resnet = reference.CLIP(visual, 64, 1, 64)
    for model in (openai, resnet, hugging_face):  # the last one without its config.json
        torch.save(model.state_dict(), tmp_path / "clip.pt")
        with pytest.raises(ValueError, match=r"only ViTs, not OpenAI's"):
            verify(tmp_path / "clip.pt")


def irra_file(folder, model, wrap=lambda state: {"model": state, "epoch": 60}):
    torch.save(wrap(model.state_dict()), folder / "best.pth")
    return folder / "best.pth"


def test_an_irra_checkpoint_is_an_aima(tmp_path):
    path = irra_file(tmp_path, reference.small_irra())
    config, model = load_irra(path, image_size=(32, 16))
    assert (config.num_categories, config.fusion_depth) == (5, 2)
    assert model.config == config
    command = ["convert", "aima", str(path), str(tmp_path / "a.safetensors")]
    assert main([*command, "--image_size", "32", "16"]) == 0
    other, resized = load_irra(path, image_size=(48, 24), grid=(4, 2))
    assert other.clip.vision.grid((48, 24)) == (6, 3)
    positions = "clip.vision.position_embedding"
    ours, theirs = flatten(model), flatten(resized)
    expected = resize_positions(ours.pop(positions), (4, 2), (6, 3))
    assert np.array_equal(theirs.pop(positions), expected)
    assert all(np.array_equal(x, theirs[name]) for name, x in ours.items())


def test_irra_s_overlapping_patches_and_resnets(tmp_path):
    path = irra_file(tmp_path, reference.small_irra(grid=(7, 3), stride=4))
    config, _ = load_irra(path, image_size=(32, 16), patch_stride=4)
    assert config.clip.vision.patch_stride == 4
    assert config.clip.image_size == (32, 16)
    config, _ = load_irra(path, image_size=(48, 24), patch_stride=8, grid=(7, 3))
    assert config.clip.vision.grid(config.clip.image_size) == (6, 3)
    with pytest.raises(ValueError, match="21 points, expected 4 × 2"):
        load_irra(path, image_size=(32, 16))

    torch.manual_seed(0)
    visual = reference.ModifiedResNet((4, 2), 16, (1, 1, 1, 1), 64)
    model = reference.IRRA(reference.CLIP(visual, 64, 1, 64), 64, 1, 3).eval()
    config, aima = load_irra(irra_file(tmp_path, model), image_size=(128, 64))
    images = torch.randn(1, 3, 128, 64)
    with torch.no_grad():
        expected = model.base_model.visual(images)
    _, tokens = nnx.jit(lambda m, x: m.encode_image(x))(aima, images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wanted", [5, 7, 0])
def test_irra_s_classifier_is_loaded_where_it_fits(wanted, tmp_path):
    theirs = reference.small_irra()
    path = irra_file(tmp_path, theirs)
    config, model = load_irra(path, image_size=(32, 16), num_categories=wanted)
    assert config.num_categories == wanted
    if wanted == 0:
        assert model.classifier is None
        return
    kernel = np.asarray(model.classifier.kernel[...])
    assert kernel.shape == (64, wanted)
    if wanted == 5:
        assert np.array_equal(kernel, theirs.classifier.weight.detach().numpy().T)
    else:
        assert 0.0008 < kernel.std() < 0.0012


def test_an_irra_checkpoint_with_parts_missing_names_them(tmp_path):
    def without_head(state):
        return {name: x for name, x in state.items() if not name.startswith("mlm_head")}

    path = irra_file(tmp_path, reference.small_irra(), without_head)
    with pytest.raises(ValueError, match=r"missing \(6\): mlm_head.dense.bias, "):
        load_irra(path, image_size=(32, 16))
    with pytest.raises(ValueError, match="load_irra"):
        load_clip(path)
