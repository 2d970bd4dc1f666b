"""A few columns of many stage outputs in one cached table, so that a search does not read a thousand objects.

A cache like the marker index: the first search builds it, later ones read only new stage outputs. It may be deleted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.marker_index import READERS, keep

_HELD = b"shards"  # field of the table's metadata: the names of the shards that it holds


def lookup(store: Store, name: str, schema: pa.Schema, readers: Mapping[str, Callable[[], pa.Table]]) -> pa.Table:
    """The rows of these shards, in read table with an extra column ``shard``.

    name: the cache's name. schema: of the tables that readers return. readers: by the shard's name, which must always
    stand for the same content; a reader is called, in a thread, for each shard that the cache lacks. Rows of shards
    that are not in ``readers`` are dropped from the cache.
    """
    key = keys.cache(f"{name}.parquet")
    full = schema.append(pa.field("shard", pa.string()))
    rows, held = _cached(store, key, full)
    missing = [shard for shard in readers if shard not in held]
    gone = held.difference(readers)
    if gone:
        rows = rows.filter(pc.is_in(rows["shard"], pa.array(sorted(set(readers)), pa.string())))
    if missing:

        def read(shard: str) -> pa.Table:
            part = readers[shard]().cast(schema)
            return part.append_column("shard", pa.array([shard] * len(part), pa.string()))

        with ThreadPoolExecutor(READERS) as pool:
            rows = pa.concat_tables([rows, *pool.map(read, missing)])
    if missing or gone:
        out = io.BytesIO()
        metadata = {_HELD: json.dumps(sorted(readers)).encode()}
        pq.write_table(rows.replace_schema_metadata(metadata), out, compression="zstd")
        keep(store, key, out.getvalue())
    return rows


def _cached(store: Store, key: str, schema: pa.Schema) -> tuple[pa.Table, set[str]]:
    try:
        table = pq.read_table(io.BytesIO(store.get(key)), use_threads=False, pre_buffer=False)
        held = set(json.loads(table.schema.metadata[_HELD]))
        return table.replace_schema_metadata(None).cast(schema), held
    except (NotFoundError, pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return schema.empty_table(), set()  # there is no cache yet, or it is damaged: build it anew
