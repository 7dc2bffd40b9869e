"""Evaluation: `evaluate(config, workdir)`, and the metrics on their own."""

from aima_jax.evaluation.evaluate import evaluate, results_table
from aima_jax.evaluation.metrics import retrieval_metrics

__all__ = ["evaluate", "results_table", "retrieval_metrics"]
