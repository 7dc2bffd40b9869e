"""Market-1501 with the attribute labels of Lin et al."""

from tfds_builders.market1501_attribute.schema import SCHEMA
from tfds_builders.market1501_attribute.wording import WORDING

__all__ = ["SCHEMA", "WORDING"]
