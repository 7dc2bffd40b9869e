"""Pedestrians rendered from attributes."""

from tfds_builders.synthetic_pedestrians.schema import SCHEMA
from tfds_builders.synthetic_pedestrians.wording import WORDING

__all__ = ["SCHEMA", "WORDING"]
