"""Text attribute person search in JAX: AIMA (arXiv 2406.03721), from labels to a ranked gallery."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aima_jax.search import PersonSearch

__version__ = "0.1.0"


def load(run: str | os.PathLike[str]) -> "PersonSearch":
    """Load the model of a run to search pictures with.

    Args:
        run: a workdir, for its best checkpoint, a checkpoint, or an exported file.

    Raises:
        FileNotFoundError: there is no sound checkpoint, or no such file.
        ValueError: the given checkpoint or file is damaged.
    """
    from aima_jax.search import PersonSearch

    return PersonSearch.load(run)
