"""Search of one's own pictures by attributes or words: `aima_jax.load`, and a gallery on disk."""

from aima_jax.search.gallery import IndexedFolder, index_folder
from aima_jax.search.person_search import PersonSearch, Query

__all__ = ["IndexedFolder", "PersonSearch", "Query", "index_folder"]
