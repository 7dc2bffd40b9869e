"""Features of pictures and sentences on all devices, of one host or several."""

import numpy as np
from flax import nnx
from splits import make_split
from steps import SIZE, small_model

from aima_jax.data import evaluation_batches
from aima_jax.evaluation.encoder import Encoder
from aima_jax.models import AIMA
from aima_jax.parameters import flatten
from aima_jax.text import tokenize

SENTENCES = tokenize([f"A {word} coat." for word in ("red", "blue", "long", "black", "green")])


def features_on_all_devices():
    model = AIMA(small_model(), rngs=nnx.Rngs(0))
    params, encoder = flatten(model), Encoder(model, batch_size=12)
    sentences = encoder.sentences(params, SENTENCES)
    pixels = evaluation_batches(make_split(15), batch_size=15, image_size=SIZE)
    pictures = list(encoder.pictures(params, next(pixels)))
    return encoder.split(params, make_split(15), SIZE), sentences, np.stack(pictures)
