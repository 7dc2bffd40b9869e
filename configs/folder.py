"""Your own dataset: `--config=configs/folder.py:NAME --config.manual_dir=FOLDER`.

NAME is given in the folder's schema.json; `NAME,small` trains a small model from scratch on a CPU.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(name: str = "") -> ConfigDict:
    config = common.get_config()
    name, _, size = name.partition(",")
    if not name or size not in ("", "small"):
        raise ValueError("configs/folder.py: expected configs/folder.py:NAME or :NAME,small")
    config.dataset = f"folder/{name}"
    if size:
        common.train_small_from_scratch(config)
        config.epochs = 20
    return config
