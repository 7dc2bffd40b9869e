"""Features of pictures and sentences: the encoder for validation, evaluation and search."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Shaped, UInt8

from aima_jax.data import Split, evaluation_batches
from aima_jax.models import AIMA
from aima_jax.models.layers import normalize
from aima_jax.parameters import Parameters, bind
from aima_jax.platform import platform_of
from aima_jax.sharding import batch_sharding, make_mesh, one_ahead, put_rows, replicated
from aima_jax.text.tokenizer import CONTEXT_LENGTH, tokenize

Encode = Callable[[Parameters, Array], Float[Array, "batch dim"]]


class Encoder:
    """An encoder in fixed-size batches over all devices of all hosts, compiled once per shape.

    All features are L2-normalised, so that their product is the cosine similarity.

    Args:
        skeleton: the model, which may be abstract: its parameters are given with each call.
        mesh: all devices by default.
        batch_size: rows encoded at once, rounded up to a multiple of the devices; the default suits
            a few queries, which are padded to a batch: a large batch is slow on a CPU.
        deterministic: be bitwise reproducible, also on a GPU.
    """

    def __init__(
        self,
        skeleton: AIMA,
        mesh: Mesh | None = None,
        batch_size: int = 0,
        *,
        deterministic: bool = False,
    ):
        mesh = mesh or make_mesh()
        platform = platform_of(mesh)
        if not batch_size:
            batch_size = 8 if platform.kind == "cpu" else 64
        config = skeleton.config.clip
        self.dim = config.dim
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self._sharding = batch_sharding(mesh)
        mean, std = config.vision.pixel_mean, config.vision.pixel_std

        def compiled(encode: Callable[[AIMA, Array], Array]) -> Encode:
            def features(params: Parameters, rows: Array) -> Array:
                raw = encode(bind(skeleton, params), rows)
                return raw / jnp.maximum(jnp.linalg.norm(raw, axis=-1, keepdims=True), 1e-12)

            options = platform.compiler_options(deterministic=deterministic)
            return jax.jit(features, out_shardings=replicated(mesh), compiler_options=options)

        self._images = compiled(lambda model, x: model.image_features(normalize(x, mean, std)))
        self._texts = compiled(lambda model, x: model.encode_text(x)[0])

    def split(
        self, params: Parameters, split: Split, image_size: tuple[int, int], *, threads: int = 0
    ) -> Float[np.ndarray, "gallery dim"]:
        """Encode every picture of a split, in its order.

        Args:
            params: of the model.
            split: the pictures.
            image_size: height and width in pixels.
            threads: decoding threads; 0: one per core, at most 8.
        """
        batches = evaluation_batches(
            split,
            batch_size=self.batch_size,
            image_size=image_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=threads,
        )
        left = range(len(split), 0, -self.batch_size)
        return self._stack(self._encode(self._images, params, zip(batches, left, strict=True)))

    def sentences(
        self, params: Parameters, tokens: Int32[np.ndarray, "query tokens"]
    ) -> Float[np.ndarray, "query dim"]:
        """Encode tokenised sentences."""
        return self._stack(self._encode(self._texts, params, self._batches(tokens)))

    def texts(
        self, params: Parameters, texts: Sequence[str], *, width: int = CONTEXT_LENGTH
    ) -> Float[np.ndarray, "query dim"]:
        """Encode texts, padded to `width` tokens if all fit.

        Raises:
            ValueError: a text is longer than the model's context.
        """
        tokens = tokenize(texts)
        fits = not tokens[:, width:].any()
        return self.sentences(params, tokens[:, :width] if fits else tokens)

    def pictures(
        self, params: Parameters, pixels: Iterable[UInt8[np.ndarray, "height width 3"]]
    ) -> Iterator[Float[np.ndarray, "dim"]]:
        """Encode pictures in order; a batch is encoded while the next is read."""
        for features in self._encode(self._images, params, self._batches(pixels)):
            yield from features

    def _batches(
        self, rows: Iterable[Shaped[np.ndarray, "..."]]
    ) -> Iterator[tuple[Shaped[np.ndarray, "local ..."], int]]:
        """This host's part of each batch, the last one padded, and the number of rows left."""
        rows, local = iter(rows), self.batch_size // jax.process_count()
        first = jax.process_index() * local
        while batch := list(islice(rows, self.batch_size)):
            padded = batch + [batch[-1]] * (self.batch_size - len(batch))
            yield np.stack(padded[first : first + local]), len(batch)

    def _encode(
        self,
        encode: Encode,
        params: Parameters,
        batches: Iterable[tuple[Shaped[np.ndarray, "local ..."], int]],
    ) -> Iterator[Float[np.ndarray, "batch dim"]]:
        placed = ((put_rows({"rows": rows}, self._sharding), count) for rows, count in batches)
        encoded = ((encode(params, batch["rows"]), count) for batch, count in placed)
        for features, count in one_ahead(encoded):
            yield np.asarray(features)[:count]

    def _stack(
        self, batches: Iterable[Float[np.ndarray, "batch dim"]]
    ) -> Float[np.ndarray, "rows dim"]:
        return np.concatenate([np.empty((0, self.dim), np.float32), *batches])
