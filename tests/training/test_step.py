"""The training step: what it learns, what it refuses, and that no arrangement changes it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from steps import (
    NO_AUGMENTATION,
    SIZE,
    Setup,
    initial,
    objective,
    only,
    small_model,
)

from aima_jax.losses import LOSSES
from aima_jax.models import AIMA, clip
from aima_jax.platform import Platform
from aima_jax.sharding import make_mesh, replicated
from aima_jax.text import PromptTemplate, build_text_table
from aima_jax.text.tokenizer import END_TOKEN, MASK_TOKEN
from aima_jax.training import masking
from aima_jax.training.optimizer import make_optimizer
from aima_jax.training.step import (
    CategoryTable,
    only_if,
)
from tfds_builders.synthetic_pedestrians.schema import SCHEMA as synthetic_schema
from tfds_builders.synthetic_pedestrians.wording import WORDING


def assert_same_step(plain_step, setup):
    """The same losses, and the same gradient, which with SGD is the change of the parameters."""
    metrics, params = plain_step
    assert setup.take()[0] == pytest.approx(metrics, rel=1e-4)
    for name, value in setup.params().items():
        np.testing.assert_allclose(value, params[name], rtol=0, atol=2e-6, err_msg=name)


def test_pictures_are_normalised_as_the_model_asks():
    pixels = {"pixel_mean": (0.5, 0.4, 0.3), "pixel_std": (0.5, 0.25, 0.2)}
    config = small_model(pixels=pixels)
    setup = Setup(only(info_nce=1.0), model=config, augmentation=NO_AUGMENTATION)
    model = AIMA(config, rngs=nnx.Rngs(0))
    images = (setup.rows["image"] / 255 - (0.5, 0.4, 0.3)) / (0.5, 0.25, 0.2)
    image = model.encode_image(images.astype(np.float32))[0]
    text = model.encode_text(setup.table.tokens[setup.rows["category"], 0])[0]
    image, text = (np.asarray(x, np.float64) for x in (image, text))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    logits = image @ text.T / 0.02
    both = [np.log(np.exp(x - np.diag(x)[:, None]).sum(1)).mean() for x in (logits, logits.T)]
    assert setup.take()[0]["info_nce"] == pytest.approx(np.mean(both), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_falls_when_trained_alone_on_one_batch(name):
    options = {"augmentation": NO_AUGMENTATION, "optimizer": optax.adam(3e-3)}
    setup = Setup(only(**{name: 1.0}), model=small_model(heads=1), **options)
    metrics = setup.take(15)
    assert set(metrics[0]) & set(LOSSES) == {name}
    losses = [values[name] for values in metrics]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def colors_alone():
    """A table of sentences that differ in two colours, which alone may be masked."""
    template = PromptTemplate(synthetic_schema, "sentence", WORDING)
    groups = {group.name: group.values for group in synthetic_schema.groups}
    dress = {"gender": "female", "age": "adult", "hair": "long", "view": "front"}
    dress |= {"sleeve": "long", "lower_type": "pants", "lower_length": "long"}
    pairs = itertools.product(groups["upper_color"], groups["lower_color"])
    rows = [
        synthetic_schema.encode(dress | {"upper_color": upper, "lower_color": lower})
        for upper, lower in pairs
    ]
    table = build_text_table(np.array(rows), template)
    phrase_ids = np.full_like(table.phrase_ids, -1)
    for row, bits in enumerate(rows):
        for i, phrase in enumerate(template.render(bits).phrases):
            if "_color=" in phrase.name:
                phrase_ids[row, table.phrase_ids[row] == i] = i
    return dataclasses.replace(table, phrase_ids=phrase_ids)


def two_bands(rng, category):
    """Noisy pictures of two bands in colors that stand for those of its category."""
    palette = np.array([*itertools.product((40, 215), repeat=3), (128, 128, 128)])
    height, width = SIZE
    images = rng.normal(0, 20, (len(category), height, width, 3))
    for image, upper, lower in zip(images, *divmod(category, 7), strict=True):
        waist = rng.integers(height // 2 - 4, height // 2 + 4)
        image[:waist] += palette[upper]
        image[waist:] += palette[lower]
    return np.clip(images, 0, 255).astype(np.uint8)


def renumbered(table, monkeypatch):
    """The table in a vocabulary of the words that it needs, and how many they are."""
    words, tokens = np.unique(np.append(table.tokens, [END_TOKEN, MASK_TOKEN]), return_inverse=True)
    monkeypatch.setattr(clip, "END_TOKEN", tokens[-2])
    monkeypatch.setattr(masking, "MASK_TOKEN", tokens[-1])
    tokens = tokens[:-2].reshape(table.tokens.shape).astype(np.int32)
    return dataclasses.replace(table, tokens=tokens), len(words)


def test_masked_prediction_reads_the_image(monkeypatch):
    """Colors that a sentence does not tell are found in fresh pictures, and not in others'."""
    rng = np.random.default_rng(0)
    table, words = renumbered(colors_alone(), monkeypatch)
    learned, fresh = np.split(rng.permutation(len(table.tokens)).astype(np.int32), [48])
    options = {"augmentation": NO_AUGMENTATION, "optimizer": optax.adam(1e-3)}
    setup = Setup(only(map=1.0), model=small_model(heads=1, words=words), **options)
    setup.table = jax.device_put(CategoryTable.of(table), replicated(setup.mesh))
    for _ in range(200):
        category = rng.choice(learned, 64)
        setup.take(image=two_bands(rng, category), category=category)

    state, category = setup.state, rng.choice(fresh, 64)
    images = two_bands(rng, category)
    own, others = [], []
    for step in range(4):  # each masks other phrases
        for accuracies, shown in ((own, images), (others, np.roll(images, 1, axis=0))):
            setup.state = dataclasses.replace(state, step=state.step + step)
            accuracies.append(setup.take(image=shown, category=category)[0]["map_accuracy"])
    assert np.mean(own) > 0.6
    assert np.mean(others) < 0.3


def test_eight_devices_with_sharded_parameters_take_the_step_of_one(plain_step):
    assert_same_step(plain_step, Setup(objective(), mesh=make_mesh(data=2, fsdp=4)))


def test_micro_batches_on_many_devices_take_the_step_of_the_whole(plain_step):
    assert_same_step(plain_step, Setup(objective(), micro_batches=2, mesh=make_mesh()))


@pytest.mark.parametrize("options", [{"scan_layers": True, "remat": "full"}, {"remat": "dots"}])
def test_how_layers_are_run_does_not_change_the_step(plain_step, options):
    assert_same_step(plain_step, Setup(objective(), model=small_model(**options)))


def test_chunked_losses_take_the_same_step(plain_step):
    assert_same_step(plain_step, Setup(objective(**{"loss.chunk_size": 6})))


def test_bfloat16_takes_nearly_the_same_step(plain_step):
    exact, _ = plain_step
    rounded = Setup(objective(), model=small_model(dtype="bfloat16")).take()[0]
    for name in objective().weights:
        assert rounded[name] == pytest.approx(exact[name], rel=0.05), name


def test_the_other_losses_see_the_unmasked_sentence():
    """Whatever is masked, they stay; with `match_masked_text`, as in IRRA's code, they move."""

    def two_steps(**changes):
        """A loss of one model at two steps, which mask different words."""
        others = {f"loss.{name}.weight": 0.0 for name in ("sdm", "identity", "attribute_iou")}
        options = {"augmentation": NO_AUGMENTATION, "optimizer": optax.sgd(0.0)}
        first, second = Setup(objective(**others, **changes), **options).take(2)
        assert first["map"] != second["map"]
        return first["info_nce"], second["info_nce"]

    first, second = two_steps()
    assert first == second
    first, second = two_steps(match_masked_text=True)
    assert first != second


def test_a_step_depends_on_seed_and_step_alone():
    setup = Setup(only(info_nce=1.0))
    start = setup.state
    first = setup.take(2)
    setup.state = start
    assert setup.take(2) == first
    setup.state = dataclasses.replace(start, step=jnp.int32(5))
    assert setup.take()[0]["loss"] != first[0]["loss"]


class TestNotFinite:
    """A weight of infinity spoils every gradient."""

    broken = staticmethod(lambda: only(info_nce=float("inf")))

    def test_nothing_changes_any_more(self):
        setup = Setup(self.broken())
        before = setup.params()
        metrics = setup.take(2)
        assert [m["failed"] for m in metrics] == [0, 0]
        assert int(setup.state.step) == 2
        for name, value in setup.params().items():
            np.testing.assert_array_equal(value, before[name])

    def test_the_schedule_counts_skipped_steps_as_the_report_does(self):
        """The rate is over 0 at step 5 alone, which comes after five that were skipped."""

        def schedule(step):
            return jnp.where(step == 5, 0.125, 0.0)

        adam = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "gradient_clip": 0.0}
        optimizer = make_optimizer(initial(small_model()), (("", 1.0, 0.0),), schedule, **adam)
        options = {"optimizer": optimizer, "schedule": schedule, "skip_nonfinite": True}
        setup = Setup(only(info_nce=1.0), **options)
        setup.state = dataclasses.replace(setup.state, step=jnp.int32(5), skipped=jnp.int32(5))
        before = setup.params()
        [metrics] = setup.take()
        assert metrics["learning_rate"] == 0.125
        moved = setup.params()
        assert any((moved[name] != value).any() for name, value in before.items())

    def test_skipping_counts_and_continues(self):
        setup = Setup(self.broken(), skip_nonfinite=True)
        assert [(m["failed"], m["skipped"]) for m in setup.take(2)] == [(-1, 1), (-1, 2)]


@pytest.mark.parametrize("platform", [None, Platform("cpu"), Platform("cuda", 9.0)])
@pytest.mark.parametrize("accept", [True, False])
def test_an_update_is_taken_if_it_is_accepted(accept, platform):
    old = {"a": jnp.arange(3.0), "b": (jnp.float32(7),)}

    @jax.jit
    def take(accept, old):
        return only_if(accept, lambda: jax.tree.map(lambda x: x / 0, old), old, platform)

    expected = jax.tree.map(lambda x: x / 0, old) if accept else old
    jax.tree.map(np.testing.assert_array_equal, take(accept, old), expected)


def test_adam_needs_no_copy_of_its_state_on_a_cpu():
    adam = optax.adam(0.1)
    params = {name: jax.ShapeDtypeStruct((256, 512), jnp.float32) for name in "abcd"}

    def step(params, moments, gradients, accept):
        def update():
            updates, after = adam.update(gradients, moments, params)
            return optax.apply_updates(params, updates), after

        return only_if(accept, update, (params, moments), Platform("cpu"))

    flag = jax.ShapeDtypeStruct((), bool)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, jax.eval_shape(adam.init, params), params, flag
    )
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 4 * 256 * 512


def test_no_transfer_happens_inside_the_loop():
    setup = Setup(only(info_nce=1.0))
    batch = setup.batch()
    compiled = setup.step.lower(setup.state, batch, setup.table).compile()
    with jax.transfer_guard("disallow"):
        _, metrics = compiled(setup.state, batch, setup.table)
    assert np.isfinite(float(metrics["loss"]))
