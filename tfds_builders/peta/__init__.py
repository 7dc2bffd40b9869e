"""PETA: pedestrian attributes at far distance."""

from tfds_builders.peta.schema import SCHEMA, SCHEMA_35
from tfds_builders.peta.wording import WORDING

__all__ = ["SCHEMA", "SCHEMA_35", "WORDING"]
