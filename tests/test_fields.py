"""A config, whatever is in it, is either sound or refused with a line for each wrong field."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from aima_jax.fields import RENAMED, check_config
from aima_jax.losses import LOSSES
from aima_jax.workdir import as_json
from configs import common, market1501, pa100k, peta, synthetic

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["auto", "stop", 1e-300, 1e300, -1, 2**40]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=4,
)


def fields(tree, prefix=()):
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from fields(value, (*prefix, name))


FIELDS = sorted(fields(as_json(common.get_config())))


@pytest.mark.parametrize("module", [common, synthetic, market1501, peta, pa100k])
def test_our_configs_are_sound(module):
    check_config(module.get_config())


def changed(changes, removed=()):
    """The default config as JSON gives it back, with other values, and without some fields."""
    config = as_json(common.get_config())
    for path, value in [*changes, *((path, None) for path in removed)]:
        inner = config
        for name in path[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[path[-1]] = value
            if path in removed:
                del inner[path[-1]]
    return ConfigDict(config)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from(FIELDS), anything), max_size=5),
    removed=st.lists(st.sampled_from(FIELDS), max_size=2),
)
def test_random_configs_are_sound_or_refused(changes, removed):
    try:
        check_config(changed(changes, removed))
    except ValueError as error:
        assert all(line.startswith(("config.", "all losses")) for line in str(error).splitlines())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 16.5),
        ("batch_size", "16"),
        ("batch_size", True),
        ("seed", -1),
        ("mask_rate", 1.01),
        ("mask_rate", math.nan),
        ("optimizer.learning_rate", math.inf),
        ("loss.temperature", 0),
        ("loss.map.weight", -1.0),
        ("loss.attribute_iou.temperature", 0.0),
        ("loss.attribute_iou.target", "cosine"),
        ("loss.info_nce.multi_positive", 1),
        ("image_size", 384),
        ("image_size", [384, 4]),
        ("augment.erase_area", [0.4, 0.02]),
        ("protocols", ["standard", "best"]),
        ("protocols", "standard"),
        ("on_save_error", "ignore"),
        ("model.activation", "relu"),
        ("model.vision_heads", -1),
        ("model.text_heads", 8.0),
        ("model.pixel_mean", [0.5, 0.5]),
        ("model.pixel_std", [0.5, 0.0, 0.5]),
    ],
)
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(ValueError, match=rf"^config\.{field}=") as refused:
        check_config(changed([(tuple(field.split(".")), value)]))
    assert "\n" not in str(refused.value)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(ValueError, match=r"dtype.*\n.*epochs.*\nall losses"):
        check_config(
            changed(
                [
                    (("dtype",), "float16"),
                    (("epochs",), 0),
                    *((("loss", name, "weight"), 0.0) for name in LOSSES),
                ]
            )
        )


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_field_is_refused_with_the_new_name(old, new):
    with pytest.raises(ValueError, match=rf"^config\.{old}=0\.5 is config\.{new} now$"):
        check_config(changed([(tuple(old.split(".")), 0.5)]))


PARTS = {"sentences.variants": 4, "sentences.varied": 0.5, "sentences.partial": 0.5}
AGREEMENT = PARTS | {"loss.labels": "agreement"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sentences.varied": 0.5}, r"sentences\.varied=0\.5 needs .*variants over 1"),
        ({"loss.partial.weight": 1.0}, r"loss\.partial\.weight=1\.0 needs .*partial over 0"),
        (
            {"loss.partial.weight": 1.0, "sentences.variants": 4},
            r"loss\.partial\.weight=1\.0 needs .*partial over 0",
        ),
        (AGREEMENT, r"loss\.labels='agreement' needs config\.loss\.info_nce\.multi_positive=True"),
    ],
)
def test_sentences_and_losses_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=rf"^config\.{message}") as refused:
        check_config(changed([(tuple(name.split(".")), value) for name, value in fields.items()]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        PARTS,
        AGREEMENT | {"loss.info_nce.multi_positive": True},
        AGREEMENT | {"loss.info_nce.weight": 0.0},
        AGREEMENT | {"sentences.varied": 0.0, "loss.partial.weight": 1.0},  # beside the whole ones
    ],
)
def test_sentences_and_losses_that_fit_are_sound(fields):
    check_config(changed([(tuple(name.split(".")), value) for name, value in fields.items()]))
