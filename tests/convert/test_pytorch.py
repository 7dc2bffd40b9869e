"""A model in plain PyTorch, alone and as a submission, beside the model that it was made from."""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import samples
import torch
from flax import nnx

import aima_jax
from aima_jax import cli
from aima_jax.checkpoint import load_model, pack_categories
from aima_jax.convert import pytorch
from aima_jax.models import AIMA, AIMAConfig, CLIPConfig
from aima_jax.text import TEMPLATES, PromptTemplate
from aima_jax.text.tokenizer import encode
from tfds_builders import market1501_attribute, pa100k, peta, synthetic_pedestrians, upar

CODE = pathlib.Path(pytorch.__file__).parent / "aima_clip.py"
# Runs where neither JAX nor this project can be imported, as the challenge's runner does.
RUNNER = """
import sys
for name in ("jax", "flax", "aima_jax", "tfds_builders", "safetensors", "tensorflow_datasets"):
    sys.modules[name] = None
sys.path.insert(0, ".")
import json, torch, run
sample = json.load(open("sample.json"))
distances = run.rank_gallery(sample)["distances"]
json.dump(torch.as_tensor(distances).tolist(), open("distances.json", "w"))
"""


@pytest.fixture(scope="module")
def aima_clip():
    """The file as a module, that nothing of this project has imported."""
    spec = importlib.util.spec_from_file_location("aima_clip", CODE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(workdir, model=None, package=upar, template="sentence"):
    """A run of a small model that knows a schema."""
    model = model or samples.make_model()
    bits = np.eye(3, package.SCHEMA.size, dtype=np.uint8)
    metadata = dataclasses.replace(
        samples.metadata(model),
        schema=package.SCHEMA.to_dict(),
        wording=package.WORDING.to_dict(),
        template=template,
        categories=pack_categories(bits),
    )
    return samples.save(workdir, model, metadata)


def test_a_submission_runs_alone_and_ranks_as_the_model_does(tmp_path):
    workdir = save(tmp_path / "run")
    assert cli.main(["convert", "upar", str(workdir), str(tmp_path / "submission.zip")]) == 0
    place = tmp_path / "elsewhere"
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert sorted(archive.namelist()) == ["aima_clip.py", "model.safetensors", "run.py"]
        archive.extractall(place)
    paths = []
    for number, size in enumerate([(60, 30), (128, 64), (33, 70), (900, 400), (32, 16)]):
        path = place / f"{number}.{'png' if number % 2 else 'jpg'}"
        samples.picture(number, size).save(path)
        paths.append(path)
    rng = np.random.default_rng(0)
    rows = (rng.random((7, 40)) < 0.3).astype(int)
    order = rng.permutation(40)
    sample = {
        "gallery": [{"image_path": str(path)} for path in paths],
        "queries": rows[:, order].tolist(),
        "attribute_names": [upar.schema.FILE_NAMES[column] for column in order],
    }
    (place / "sample.json").write_text(json.dumps(sample))
    subprocess.run([sys.executable, "-c", RUNNER], cwd=place, check=True, env={"PATH": "/usr/bin"})
    found = np.array(json.loads((place / "distances.json").read_text()))

    search = aima_jax.load(workdir)
    template = PromptTemplate(upar.SCHEMA, "sentence", upar.WORDING)
    texts = search.encode_text([template.render(row.astype(np.uint8)).text for row in rows])
    expected = 1 - texts @ search.encode_images(paths).T
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found.argsort(axis=1), expected.argsort(axis=1))
    assert np.ptp(expected) > 0.01  # there is something to rank


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_towers_of_any_size_and_stride(tmp_path, aima_clip, activation):
    config = CLIPConfig.preset("tiny", patch_stride=6, image_size=(45, 30))
    model = AIMA(
        AIMAConfig(config.with_towers(activation=activation), num_categories=3, fusion_depth=1),
        rngs=nnx.Rngs(1),
    )
    workdir = save(tmp_path / "run", model)
    assert cli.main(["convert", "pytorch", str(workdir), str(tmp_path / "torch")]) == 0
    assert (tmp_path / "torch" / "aima_clip.py").read_bytes() == CODE.read_bytes()
    ours = aima_clip.load(tmp_path / "torch" / "model.safetensors")
    assert ours.config["columns"] == list(upar.SCHEMA.names)
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((2, 45, 30, 3)).astype(np.float32)
    with torch.no_grad():
        features = ours.vision(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(features, model.clip.image_features(pixels), atol=1e-5)
    texts = ["A woman wears a red top.", "man"]
    tokens = np.array([ours.tokenizer(text) for text in texts])
    with torch.no_grad():
        features = ours.text(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(features, model.clip.encode_text(tokens)[0], atol=1e-5)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "package", [upar, market1501_attribute, pa100k, peta, synthetic_pedestrians]
)
def test_sentences_are_ours(aima_clip, package, template):
    schema, wording = package.SCHEMA, package.WORDING
    config = {"schema": schema.to_dict(), "wording": wording.to_dict(), "template": template}
    ours = PromptTemplate(schema, template, wording)
    rng = np.random.default_rng(0)
    for _ in range(150):
        bits = (rng.random(schema.size) < rng.random() / 2).astype(np.uint8)
        for group in schema.groups:
            if group.kind == "exclusive":
                places = [schema.names.index(bit) for bit in group.bits]
                bits[places] = 0
                if group.absent is None or rng.random() < 0.7:
                    bits[rng.choice(places)] = 1
        assert aima_clip.sentence(bits.tolist(), config) == ours.render(bits).text


def test_tokens_are_ours(aima_clip):
    merges = pathlib.Path(aima_jax.__file__).parent / "text" / "bpe_simple_vocab_16e6.txt.gz"
    tokenizer = aima_clip.Tokenizer(merges.read_bytes())
    texts = ["A man's T-shirt, 18-60!", "", "Füße ΣΑΣ 日本 ½ \x1c a\u00a0b", "<|endoftext|> x"]
    for text in (*texts, "it'll 've" * 3, "e\u0301"):
        assert tokenizer.encode(text) == encode(text), text
    with pytest.raises(ValueError, match="a text has 102 tokens; expected at most 77"):
        tokenizer("a " * 100)


def test_what_cannot_be_written_is_refused(tmp_path, capsys):
    run = save(tmp_path / "run", package=pa100k)
    assert cli.main(["convert", "upar", str(run), str(tmp_path / "x.zip")]) == 2
    assert "has the attributes of 'pa100k'; a submission needs UPAR's" in capsys.readouterr().err
    assert cli.main(["convert", "upar", str(run), str(tmp_path / "x.tar")]) == 2
    assert "expected a name that ends in .zip" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()
    config = CLIPConfig.preset("RN50", image_size=(64, 32))
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, width=8, layers=(1, 1, 1, 1), heads=4),
        text=dataclasses.replace(config.text, width=32, layers=1, heads=2, mlp_width=32),
        dim=64,
    )
    build = functools.partial(AIMA, AIMAConfig(config, num_categories=3, fusion_depth=1))
    resnet = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
    restored = dataclasses.replace(load_model(run), model=resnet)
    with pytest.raises(
        ValueError, match="its image tower is a ResNet; the PyTorch module supports"
    ):
        pytorch.save_pytorch(restored, tmp_path / "torch")
    assert not (tmp_path / "torch").exists()
