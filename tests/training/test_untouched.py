"""What no batch touches stays as it was, to the last bit, under each shipped recipe."""

import re

import jax
import numpy as np
import pytest

from aima_jax.models import PRESETS, CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.sharding import make_mesh
from aima_jax.text.tokenizer import END_TOKEN, MASK_TOKEN
from aima_jax.training import setup
from aima_jax.training.loop import ask_all_hosts, batches_of
from aima_jax.workdir import as_json
from configs import folder, market1501, pa100k, peta, synthetic, upar
from tfds_builders.prepare import prepare

DATASET = "synthetic_pedestrians/train64-val16-test32-seed0"
STEPS = 3
RECIPES = {
    "full": pa100k.get_config,
    "small": lambda: pa100k.get_config("small"),
    "synthetic": synthetic.get_config,
}
SHAPE = {"width": 64, "layers": 1, "heads": 1, "mlp_width": 64}
SIZE, TEXT = (64, 32), TextConfig(**SHAPE)
VIT = CLIPConfig(SIZE, 64, ViTConfig(**SHAPE, patch_size=8, patch_stride=8), TEXT)
RESNET = CLIPConfig(SIZE, 64, ResNetConfig(8, (1, 1, 1, 1), 4), TEXT)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(DATASET, data_dir=folder)
    return folder


@pytest.fixture
def changes(data_dir, tmp_path, monkeypatch):
    """A function that takes some steps of a recipe with a tiny model, on one device."""
    monkeypatch.setattr(setup, "make_mesh", lambda *_: make_mesh(devices=jax.devices()[:1]))

    def take_steps(config, model=VIT):
        """The run, and for each array the elements that have changed."""
        monkeypatch.setitem(PRESETS, "tiny", model)
        config.update({"dataset": DATASET, "data_dir": str(data_dir), "image_size": SIZE})
        config.update({"batch_size": 16, "epochs": 2, "weights": ""})
        config.model.update({"variant": "tiny", "fusion_depth": 1})
        run = setup.open_run(config, tmp_path)
        # Copies, since the step donates the state.
        before = {name: np.array(value) for name, value in run.state.params.items()}
        state, request = run.state, ask_all_hosts(run.mesh, 0)
        for _, batch in zip(range(STEPS), batches_of(run), strict=False):
            state, metrics = run.step(state, batch | request, run.table)
        assert int(state.step) == STEPS and int(metrics["failed"]) == -1
        after = {name: np.asarray(value) for name, value in state.params.items()}
        return run, {n: before[n].view(np.uint32) != after[n].view(np.uint32) for n in before}

    return take_steps


def assert_words_stay(run, changed):
    """Only words and positions of the sentences have moved, and those have."""
    sentences = np.asarray(run.table.tokens).reshape(-1, run.table.tokens.shape[-1])
    lengths = (sentences == END_TOKEN).argmax(axis=1) + 1
    said = np.arange(sentences.shape[1]) < lengths[:, None]
    used = np.zeros(len(changed["clip.text.token_embedding"]), bool)
    used[[*sentences[said], MASK_TOKEN]] = True
    words = changed["clip.text.token_embedding"].any(axis=1)
    assert used.sum() < 200 and not words[~used].any()
    assert words[[END_TOKEN, MASK_TOKEN]].all()
    positions = changed["clip.text.position_embedding"].any(axis=1)
    assert not positions[lengths.max() :].any() and positions[: lengths.min()].all()


def test_shipped_configs_have_the_recipes_tried_here():
    def recipe(config):
        return as_json(config.optimizer), as_json(config.loss)

    tried = [recipe(get_config()) for get_config in RECIPES.values()]
    for config in (market1501, peta, upar):
        assert recipe(config.get_config())[0] in [optimizer for optimizer, _ in tried]
    for config in (market1501, peta):
        assert recipe(config.get_config()) in tried
    assert recipe(folder.get_config("example,small")) in tried


@pytest.mark.parametrize("name", RECIPES)
def test_words_and_positions_of_no_sentence_stay(name, changes):
    run, changed = changes(RECIPES[name]())
    assert_words_stay(run, changed)
    assert all(elements.any() for elements in changed.values())  # each takes part in some loss


def test_statistics_and_modules_without_a_loss_stay(changes):
    config = synthetic.get_config()
    config.loss.map.weight = config.loss.identity.weight = 0.0
    _, changed = changes(config, RESNET)
    still = re.compile(r"^(fusion|map_head|classifier)\.|\.(mean|variance)$")
    expected = {name for name in changed if still.search(name)}
    assert {name.split(".")[0] for name in expected} == {"clip", "fusion", "map_head", "classifier"}
    assert not {name for name in expected if changed[name].any()}
    assert {"clip.vision.conv1.kernel", "clip.vision.conv1.scale", "clip.text.final_norm.bias"} <= {
        name for name, elements in changed.items() if elements.any()
    }
