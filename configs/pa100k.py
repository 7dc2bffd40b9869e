"""PA-100K: the full recipe, ViT-B/16 at 384×128 from CLIP's weights.

`--config=configs/pa100k.py:small` trains a small model from scratch on a CPU, without any download:
to try real crops, not for good numbers.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(size: str = "full") -> ConfigDict:
    config = common.get_config()
    config.dataset = "pa100k"
    if size == "small":
        common.train_small_from_scratch(config)
        config.epochs = 20
    elif size != "full":
        raise ValueError(f'configs/pa100k.py:{size}: expected "full" or "small"')
    return config
