"""Where a run's prepared dataset lies; the first run prepares it."""

import pathlib

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict


def prepared_folder(config: ConfigDict) -> pathlib.Path:
    """The prepared folder of `config.dataset`, prepared by the first host if need be.

    Raises:
        FileNotFoundError: neither prepared nor raw files are there.
        ValueError: the raw files are not what they should be, or no such dataset is known.
    """
    from tfds_builders.prepare import find, prepare

    places = {"data_dir": config.data_dir or None}
    if jax.process_index() == 0:
        prepare(config.dataset, manual_dir=config.manual_dir or None, **places)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("prepared")
    folder = find(config.dataset, **places)
    if folder is None:
        raise FileNotFoundError(
            f"{config.dataset} is not prepared in config.data_dir={config.data_dir!r} on host "
            f"{jax.process_index()}; all hosts need the same shared folder, or each its own copy"
        )
    return folder
