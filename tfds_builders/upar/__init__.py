"""UPAR 2027: Market-1501, PA-100K and PETA with one vocabulary of 40 attributes."""

from tfds_builders.upar.schema import SCHEMA
from tfds_builders.upar.wording import WORDING

__all__ = ["SCHEMA", "WORDING"]
