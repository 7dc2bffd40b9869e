"""Text attribute person search in JAX: AIMA (arXiv 2406.03721), from labels to a ranked gallery."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aima_jax.search import PersonSearch

__version__ = "0.1.0"


def load(workdir_or_checkpoint: str | os.PathLike[str]) -> "PersonSearch":
    """Loads the model of a run, or of one of its checkpoints, to search pictures with.

    Raises:
        FileNotFoundError: there is no sound checkpoint.
        ValueError: the checkpoint that was named is damaged.
    """
    from aima_jax.search import PersonSearch

    return PersonSearch.load(workdir_or_checkpoint)
