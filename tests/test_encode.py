"""Features of a split are the same on one device and on many, however its end falls."""

import jax
import numpy as np
from flax import nnx
from test_data_pipeline import make_split
from test_step import SIZE, small_model

from aima_jax.data import evaluation_batches
from aima_jax.evaluation.encode import Encoder
from aima_jax.models import AIMA
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh
from aima_jax.text import tokenize

SENTENCES = tokenize([f"A {word} coat." for word in ("red", "blue", "long", "black", "green")])


def test_every_device_count_gives_the_same_features():
    pixels = {"pixel_mean": (0.5, 0.4, 0.3), "pixel_std": (0.5, 0.25, 0.2)}
    model = AIMA(small_model(pixels=pixels), rngs=nnx.Rngs(0))
    params = flatten(model)

    def encoder(devices):
        mesh = make_mesh(devices=jax.devices()[:devices])
        return Encoder(model, mesh, batch_size=12, threads=1)

    alone, many = encoder(1), encoder(8)
    expected = alone.gallery(params, make_split(37), SIZE)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-5  # each picture has its own
    for pictures in (37, 5, 1):
        found = many.gallery(params, make_split(pictures), SIZE)
        np.testing.assert_allclose(found, expected[:pictures], rtol=0, atol=1e-5)
    # The pictures are normalised as this model asks, whatever CLIP's own statistics are.
    pixels = next(evaluation_batches(make_split(3), batch_size=3, image_size=SIZE))["image"]
    normal = ((pixels / 255 - (0.5, 0.4, 0.3)) / (0.5, 0.25, 0.2)).astype(np.float32)
    by_hand = np.array(model.encode_image(normal)[0])
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(expected[:3], by_hand, rtol=0, atol=1e-5)
    sentences = alone.queries(params, SENTENCES)
    np.testing.assert_allclose(many.queries(params, SENTENCES), sentences, rtol=0, atol=1e-5)
