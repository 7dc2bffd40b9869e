"""Pedestrians rendered from attributes."""

from tfds_builders.synthetic_pedestrians.builder import SyntheticPedestrians

__all__ = ["SyntheticPedestrians"]
