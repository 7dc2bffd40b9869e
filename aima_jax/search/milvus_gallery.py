"""A gallery in Milvus: embedded in a file by milvus-lite, or on a server, by the same calls.

    milvus:/path/to/gallery.db            milvus:http://host:19530

Two collections: `aima`, with a row for each picture, and `aima_header`, of one row that says what
`gallery.json` says of a folder, and the columns. The index is FLAT: the search is exact.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from aima_jax.files import user_path
from aima_jax.search.gallery import FORMAT, MILVUS, Gallery, GalleryRows, Known, Stamp
from aima_jax.search.where import matching, milvus_filter, parse_where, require_columns

_ROWS, _HEADER = "aima", "aima_header"
_AT_ONCE = 1000  # rows of one call: those of 1,024 numbers are 4 MB
_MOST = 16_384  # places that Milvus returns at most


class MilvusGallery(Gallery):
    """A gallery in Milvus; see `Gallery`.

    A write reaches the collection in several calls: interrupted, some of its rows are there, and
    indexing again brings the rest.
    """

    def __init__(self, place: str | os.PathLike[str]):
        self.place = os.fspath(place)
        self._client = _connect(self.place, create=False)
        with _reported(self.place):
            if not self._client.has_collection(_HEADER):
                raise FileNotFoundError(
                    f"there is no gallery in {self.place}: aima index makes one"
                )
            (row,) = self._client.query(_HEADER, filter="id == 0", output_fields=["header"])
        self._header = json.loads(row["header"])
        if self._header["format"] != FORMAT:
            raise ValueError(f"{self.place} is of format {self._header['format']}, not {FORMAT}")
        self.model_id, self.dim = self._header["model_id"], self._header["dim"]
        self.folder = pathlib.Path(self._header["folder"])

    @classmethod
    def create(
        cls,
        place: str | os.PathLike[str],
        *,
        model_id: str,
        dim: int,
        folder: str,
        dtype: str,
    ) -> "MilvusGallery":
        if dtype != "float32":
            raise ValueError(f"dtype={dtype!r}; a gallery in Milvus is of float32")
        from pymilvus import DataType, MilvusClient  # pyright: ignore[reportMissingImports]

        client = _connect(os.fspath(place), create=True)
        with _reported(place):
            for collection, size in ((_ROWS, dim), (_HEADER, 2)):
                schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field("features", DataType.FLOAT_VECTOR, dim=size)
                index = client.prepare_index_params()
                index.add_index("features", index_type="FLAT", metric_type="IP")
                client.create_collection(
                    collection, schema=schema, index_params=index, consistency_level="Strong"
                )
            header = {"format": FORMAT, "model_id": model_id, "dim": dim, "folder": folder}
            _write_header(client, header | {"columns": {"name": "text"}})
        return cls(place)

    def __len__(self) -> int:
        with _reported(self.place):
            (row,) = self._client.query(_ROWS, filter="", output_fields=["count(*)"])
        return row["count(*)"]

    @property
    def columns(self) -> tuple[str, ...]:
        return ("name", *sorted(self._header["columns"].keys() - {"name"}))

    def nearest(
        self, vectors: Float[np.ndarray, "query dim"], k: int, where: str = ""
    ) -> tuple[Float[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
        if k < 1:
            raise ValueError(f"k must be at least 1, it is {k}")
        if np.shape(vectors)[1:] != (self.dim,):
            raise ValueError(
                f"queries have shape {np.shape(vectors)}; expected [query, {self.dim}]"
            )
        text = ""
        if where:
            tree = parse_where(where)
            named = require_columns(tree, self.columns)
            kinds = {"text": np.empty(0, np.str_), "number": np.empty(0)}
            matching(tree, {column: kinds[self._header["columns"][column]] for column in named})
            text = milvus_filter(tree)
        with _reported(self.place):
            found = self._client.search(
                _ROWS,
                data=np.asarray(vectors, np.float32).tolist(),
                anns_field="features",
                limit=min(k, _MOST),
                filter=text,
                output_fields=["id"],
            )
        scores = np.array([[hit["distance"] for hit in hits] for hits in found], np.float32)
        keys = np.array([[hit["id"] for hit in hits] for hits in found], np.int64)
        return scores.reshape(len(vectors), -1), keys.reshape(len(vectors), -1)

    def rows(self, keys: Iterable[Any]) -> GalleryRows:
        keys = [int(key) for key in keys]
        found = {}
        for some in _batches(keys):
            with _reported(self.place):
                for row in self._client.get(_ROWS, ids=some, output_fields=["*"]):
                    found[row["id"]] = dict(row)
        own = {"id", "features", "name", "stamp_size", "stamp_changed"}
        rows = [found[key] for key in keys]
        return GalleryRows(
            [row["name"] for row in rows],
            np.array([row["features"] for row in rows], np.float32).reshape(-1, self.dim),
            [{column: row[column] for column in sorted(row.keys() - own)} for row in rows],
            [Stamp(row["stamp_size"], row["stamp_changed"]) for row in rows],
        )

    def known(self) -> dict[str, Known]:
        fields = ["id", "name", "stamp_size", "stamp_changed"]
        known, last = {}, -(2**63)
        while True:
            with _reported(self.place):
                rows = self._client.query(
                    _ROWS, filter=f"id > {last}", output_fields=fields, limit=_MOST, order_by="id"
                )
            for row in rows:
                stamp = Stamp(row["stamp_size"], row["stamp_changed"])
                known[row["name"]] = Known(stamp, row["id"])
            if len(rows) < _MOST:
                return known
            last = max(row["id"] for row in rows)

    def write(
        self,
        rows: GalleryRows,
        *,
        gone: Sequence[str] = (),
        unreadable: Sequence[tuple[str, Stamp, str]] = (),
        writer: str = "",
    ) -> None:
        kinds = {
            column: "text" if isinstance(value, str) else "number"
            for facts in rows.facts
            for column, value in facts.items()
        }
        entries = [
            {"id": _id(name), "features": feature.tolist(), "name": name, **facts}
            | {"stamp_size": stamp.size, "stamp_changed": stamp.changed}
            for name, feature, facts, stamp in zip(
                rows.names, rows.features, rows.facts, rows.stamps, strict=True
            )
        ]
        lost = [_id(name) for name in (*gone, *(name for name, *_ in unreadable))]
        with _reported(self.place):
            if kinds.keys() - self._header["columns"].keys():
                self._header["columns"] |= kinds
                _write_header(self._client, self._header)
            for some in _batches(entries):
                self._client.upsert(_ROWS, some)
            for some in _batches(lost):
                self._client.delete(_ROWS, ids=some)

    def locked(self, writer: str) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


def _write_header(client: Any, header: dict[str, Any]) -> None:
    client.upsert(_HEADER, [{"id": 0, "features": [0.0, 1.0], "header": json.dumps(header)}])


def _id(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], signed=True)


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _connect(place: str, *, create: bool) -> Any:
    """A client of the database at a place."""
    try:
        from pymilvus import MilvusClient  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(f"{place} needs Milvus' client: pip install 'aima-jax[milvus]'") from None
    uri = place.removeprefix(MILVUS)
    if not uri.startswith(("http://", "https://")):
        path = user_path(uri)
        if not create and not path.exists():
            raise FileNotFoundError(f"there is no gallery {place}; make one with aima index")
        uri = str(path)
    with _reported(place):
        return MilvusClient(uri)


@contextlib.contextmanager
def _reported(place: str | os.PathLike[str]) -> Iterator[None]:
    """Say of what place an error of Milvus is.

    Raises:
        ValueError: Milvus has raised an error.
    """
    from pymilvus.exceptions import MilvusException  # pyright: ignore[reportMissingImports]

    try:
        yield
    except MilvusException as error:
        raise ValueError(f"Milvus at {place}: {error.message or error}") from error
