"""Market-1501 with the attribute labels of Lin et al."""

from tfds_builders.market1501_attribute.builder import Market1501Attribute

__all__ = ["Market1501Attribute"]
