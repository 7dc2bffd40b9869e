"""PETA: pedestrian attributes at far distance."""

from tfds_builders.peta.builder import Peta, PetaConfig

__all__ = ["Peta", "PetaConfig"]
