"""Rank-1 and mAP on a validation split while training."""

import numpy as np

from aima_jax.data import categories
from aima_jax.evaluation.encoder import Encoder
from aima_jax.evaluation.metrics import METRICS
from aima_jax.evaluation.protocols import GalleryLabels
from aima_jax.evaluation.ranking import evaluate_rankings
from aima_jax.parameters import Parameters
from aima_jax.text import build_text_table
from aima_jax.training.setup import Run


class Validation:
    """Evaluates parameters by the standard protocol on the validation split of a run."""

    def __init__(self, run: Run):
        config, split = run.config, run.problem.validation
        queries, category = categories(split.attributes)
        self._split = split
        self._image_size = config.image_size
        self._tokens = build_text_table(queries, run.problem.template).tokens[:, 0]
        self._labels = GalleryLabels(category, split.identity, split.camera, split.filename)
        self._threads = config.data.threads
        self._encoder = Encoder(run.skeleton, run.mesh, batch_size=config.eval_batch_size)

    def __call__(self, params: Parameters) -> dict[str, float]:
        """R1, R5, R10, mAP and mINP as fractions of 1."""
        scores = evaluate_rankings(
            self._encoder.sentences(params, self._tokens),
            self._encoder.split(params, self._split, self._image_size, threads=self._threads),
            np.arange(len(self._tokens)),
            self._labels,
            ("standard",),
            traits={},
        )["standard"]
        return {name: scores[name] for name in METRICS}
