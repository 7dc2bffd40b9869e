"""PA-100K: 100,000 pedestrians from outdoor surveillance cameras."""

from tfds_builders.pa100k.schema import SCHEMA
from tfds_builders.pa100k.wording import WORDING

__all__ = ["SCHEMA", "WORDING"]
