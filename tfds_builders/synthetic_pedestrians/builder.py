"""Rendered pedestrians as a dataset of any size, without raw files."""

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.records import PersonSearchBuilder, Record, SplitRecords, Traits
from tfds_builders.synthetic_pedestrians.schema import SCHEMA
from tfds_builders.synthetic_pedestrians.splits import Size, SplitPlan, plan, render_split
from tfds_builders.synthetic_pedestrians.wording import WORDING


class SyntheticPedestrians(PersonSearchBuilder):
    """Figures rendered from attributes, in the manner of Market-1501, PETA and PA-100K.

    The config is the size: "train6000-val400-test1000-seed0", or any other numbers. Two
    fifths of the test categories never occur in training.
    """

    name = "synthetic_pedestrians"
    schema = SCHEMA
    wording = WORDING
    traits = Traits(cameras=False, query_folder=None, identities=True)
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=Size().name),)

    def __init__(self, *, config: str | tfds.core.BuilderConfig | None = None, **kwargs):
        if isinstance(config, str):
            name = self.config_name(config)
            configs = [known for known in self.BUILDER_CONFIGS if known.name == name]
            config = configs[0] if configs else tfds.core.BuilderConfig(name=name)
        super().__init__(config=config, **kwargs)

    @classmethod
    def config_name(cls, name: str) -> str:
        """Return the name of the config, the default for "".

        Raises:
            ValueError: it is not the name of a size.
        """
        return Size.parse(name).name if name else Size().name

    def splits(self, manual_dir: pathlib.Path | None) -> dict[str, SplitRecords]:
        """Return train, val and test; pictures are rendered while they are read."""
        config: Any = self.builder_config
        size = Size.parse(config.name)
        return {
            name: SplitRecords(split.pictures, _records(size, split))
            for name, split in plan(size).items()
        }


def _records(size: Size, split: SplitPlan) -> Iterator[Record]:
    for index, image in enumerate(render_split(size, split)):
        yield Record(image=image, **vars(split.assignment(index)))
