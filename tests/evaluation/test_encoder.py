"""Features of a split are the same on one device, many and two hosts, however its end falls."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from encoding import SENTENCES, features_on_all_devices
from flax import nnx
from splits import make_split
from steps import SIZE, small_model

from aima_jax.data import evaluation_batches
from aima_jax.evaluation.encoder import Encoder
from aima_jax.models import AIMA
from aima_jax.parameters import flatten
from aima_jax.sharding import make_mesh


def test_every_device_count_gives_the_same_features():
    pixels = {"pixel_mean": (0.5, 0.4, 0.3), "pixel_std": (0.5, 0.25, 0.2)}
    model = AIMA(small_model(pixels=pixels), rngs=nnx.Rngs(0))
    params = flatten(model)

    def encoder(devices):
        mesh = make_mesh(devices=jax.devices()[:devices])
        return Encoder(model, mesh, batch_size=12)

    alone, many = encoder(1), encoder(8)
    expected = alone.split(params, make_split(37), SIZE)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-5  # each picture has its own
    for pictures in (37, 5, 1):
        found = many.split(params, make_split(pictures), SIZE)
        np.testing.assert_allclose(found, expected[:pictures], rtol=0, atol=1e-5)
    # The pictures are normalised as this model asks, whatever CLIP's own statistics are.
    pixels = next(evaluation_batches(make_split(3), batch_size=3, image_size=SIZE))
    normal = ((pixels / 255 - (0.5, 0.4, 0.3)) / (0.5, 0.25, 0.2)).astype(np.float32)
    by_hand = np.array(model.encode_image(normal)[0])
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(expected[:3], by_hand, rtol=0, atol=1e-5)
    sentences = alone.sentences(params, SENTENCES)
    np.testing.assert_allclose(many.sentences(params, SENTENCES), sentences, rtol=0, atol=1e-5)


HOST = """
import sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import encoding
assert jax.device_count() == 2 * jax.local_device_count()
np.savez(sys.argv[3], *encoding.features_on_all_devices())
"""


@pytest.mark.slow
def test_two_hosts_encode_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    path = os.pathsep.join(sys.path)
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    files = [tmp_path / f"{host}.npz" for host in range(2)]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, coordinator, str(host), str(file)],
            env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags},
        )
        for host, file in enumerate(files)
    ]
    try:
        for host in hosts:
            host.wait(timeout=300)
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0]
    expected = features_on_all_devices()
    np.testing.assert_allclose(expected[2], expected[0], rtol=0, atol=1e-6)
    for file in files:
        with np.load(file) as found:
            for name, features in zip(found.files, expected, strict=True):
                np.testing.assert_allclose(found[name], features, rtol=0, atol=1e-5)
