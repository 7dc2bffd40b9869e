"""PA-100K: 100,000 pedestrians from outdoor surveillance cameras."""

from tfds_builders.pa100k.builder import Pa100k

__all__ = ["Pa100k"]
