"""Features of a whole split, in batches of one shape over all devices and hosts."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from aima_jax import compiler
from aima_jax.data import Split, evaluation_batches
from aima_jax.models import AIMA
from aima_jax.parameters import Parameters, bind
from aima_jax.pixels import normalize
from aima_jax.sharding import batch_sharding, one_late, put_rows, replicated

Rows = dict[str, Array]


class Encoder:
    """Encodes pictures and sentences with given parameters; compiled once for each shape.

    Args:
        skeleton: the model, which may be abstract.
        mesh: of all devices.
        batch_size: rows encoded at once, rounded up so that the devices divide it.
        threads: that decode pictures.
    """

    def __init__(self, skeleton: AIMA, mesh: Mesh, *, batch_size: int, threads: int):
        self._rows = batch_sharding(mesh)
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._threads = threads
        self._dim = skeleton.config.clip.dim
        vision = skeleton.config.clip.vision
        normal = partial(normalize, mean=vision.pixel_mean, std=vision.pixel_std)
        self._images = _compiled(skeleton, mesh, lambda model, x: model.image_features(normal(x)))
        self._texts = _compiled(skeleton, mesh, lambda model, x: model.encode_text(x)[0])

    def gallery(
        self, params: Parameters, split: Split, image_size: tuple[int, int]
    ) -> Float[np.ndarray, "gallery dim"]:
        """L2-normalised features of every picture of a split, in its order."""
        batches = evaluation_batches(
            split,
            batch_size=self._batch_size,
            image_size=image_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=self._threads,
        )
        rows = ({"input": b["image"], "index": b["index"], "mask": b["mask"]} for b in batches)
        return self._collect(self._images, params, rows, len(split))

    def queries(
        self, params: Parameters, tokens: Int32[np.ndarray, "query tokens"]
    ) -> Float[np.ndarray, "query dim"]:
        """L2-normalised features of tokenised sentences."""
        count = len(tokens)
        local = self._batch_size // jax.process_count()
        first = jax.process_index() * local

        def rows():
            for start in range(0, count, self._batch_size):
                index = start + first + np.arange(local)
                held = np.minimum(index, count - 1)
                yield {"input": tokens[held], "index": held, "mask": index < count}

        return self._collect(self._texts, params, rows(), count)

    def _collect(self, compiled, params: Parameters, batches, count: int) -> np.ndarray:
        features = np.full((count, self._dim), np.nan, np.float32)

        for done in one_late(compiled(params, put_rows(batch, self._rows)) for batch in batches):
            mask = np.asarray(done["mask"])
            features[np.asarray(done["index"])[mask]] = np.asarray(done["input"])[mask]
        return features


def _compiled(
    skeleton: AIMA, mesh: Mesh, encode: Callable[[AIMA, Array], Array]
) -> Callable[[Parameters, Rows], Rows]:
    """A compiled function that replaces `input` by its normalised features, for every host."""

    def features(params: Parameters, rows: Rows) -> Rows:
        raw = encode(bind(skeleton, params), rows["input"])
        norm = jnp.linalg.norm(raw, axis=-1, keepdims=True)
        return {**rows, "input": raw / jnp.maximum(norm, 1e-12)}

    return jax.jit(features, out_shardings=replicated(mesh), compiler_options=compiler.options())
