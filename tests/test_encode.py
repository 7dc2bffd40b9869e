"""Features of a split are the same on one device and on many, however its end falls."""

import jax
import numpy as np
import pytest
from flax import nnx
from test_data_pipeline import make_split
from test_step import SIZE, small_model

from aima_jax.evaluation.encode import Encoder
from aima_jax.models import AIMA
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh
from aima_jax.text import tokenize

SENTENCES = tokenize([f"A {word} coat." for word in ("red", "blue", "long", "black", "green")])


@pytest.fixture(scope="module")
def features():
    """Features of some pictures and of five sentences, by a number of devices."""
    model = AIMA(small_model(), rngs=nnx.Rngs(0))
    params = flatten(model)

    def encode(devices, pictures, batch_size=12):
        mesh = make_mesh(devices=jax.devices()[:devices])
        encoder = Encoder(model, mesh, batch_size=batch_size, threads=1)
        gallery = encoder.gallery(params, make_split(pictures), SIZE)
        return gallery, encoder.queries(params, SENTENCES)

    return encode


def test_every_device_count_gives_the_same_features(features):
    whole, sentences = features(1, 37)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    assert np.abs(whole[1:] - whole[:-1]).max(axis=1).min() > 1e-5  # each picture has its own
    for devices, pictures in ((8, 37), (8, 5), (8, 1), (3, 12)):
        some, again = features(devices, pictures)
        np.testing.assert_allclose(some, whole[:pictures], rtol=0, atol=1e-5)
        np.testing.assert_allclose(again, sentences, rtol=0, atol=1e-5)
