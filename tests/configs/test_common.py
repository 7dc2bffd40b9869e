"""The defaults against the recipe, number by number, written from its description."""

import pytest

from configs import common, market1501, pa100k, peta, upar

RECIPE = {
    "image_size": (384, 128),
    "batch_size": 64,
    "epochs": 60,
    "mask_rate": 0.15,
    "match_masked_text": False,
    "model.fusion_depth": 4,
    "loss.temperature": 0.02,
    "augment.flip": 0.5,
    "augment.pad": 10,
    "augment.erase": 0.5,
    "augment.erase_area": (0.02, 0.4),
    "optimizer.learning_rate": 1e-5,
    "optimizer.warmup_epochs": 5,
    "optimizer.warmup_factor": 0.1,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.epsilon": 1e-3,
    "optimizer.gradient_clip": 0,
}
DATASETS = {market1501: "market1501_attribute", peta: "peta/sal", pa100k: "pa100k"}


@pytest.mark.parametrize(("field", "value"), RECIPE.items())
def test_a_default_is_that_of_the_recipe(field, value):
    found = common.get_config()
    for part in field.split("."):
        found = found[part]
    assert found == value


def test_upar_trains_with_all_positives_and_is_evaluated_by_its_own_protocol():
    own, defaults = upar.get_config().to_dict(), common.get_config().to_dict()
    assert own.pop("dataset") == "upar"
    assert own.pop("protocols") == ("standard", "upar")
    assert own["loss"]["info_nce"].pop("multi_positive") is True
    assert defaults["loss"]["info_nce"].pop("multi_positive") is False
    assert own == {name: value for name, value in defaults.items() if name in own}


@pytest.mark.parametrize("module", DATASETS)
def test_a_full_config_changes_dataset_and_protocols_alone(module):
    own, defaults = module.get_config().to_dict(), common.get_config().to_dict()
    changed = {name for name in defaults if own[name] != defaults[name]}
    assert own.keys() == defaults.keys() and changed <= {"dataset", "protocols"}
    assert own["dataset"] == DATASETS[module]
