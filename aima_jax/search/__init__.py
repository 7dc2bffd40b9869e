"""Search of one's own pictures by attributes or words: `aima_jax.load`, and galleries."""

from aima_jax.search.gallery import Gallery
from aima_jax.search.index import index_folder
from aima_jax.search.person_search import PersonSearch, Query
from aima_jax.search.request import find_pictures, parse_request

__all__ = ["Gallery", "PersonSearch", "Query", "find_pictures", "index_folder", "parse_request"]
