"""TFDS builders of the pedestrian datasets, and what prepares and describes them."""
