"""Lookups: a few columns of many shards in one table, so that something is found without reading a thousand shards.

A cache like the digests: made when it is first asked for, then only what is new is read. It may be deleted.
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

_HELD = b"shards"  # in the table's metadata: what has been read for it


def lookup(store: Store, name: str, schema: pa.Schema, readers: Mapping[str, Callable[[], pa.Table]]) -> pa.Table:
    """The rows of these shards, with a column ``shard``; those that the cache lacks are read by their reader.

    name: of the cache, ours. schema: of what a reader gives. readers: by shard, under any name that never changes its
    content; they may be called in threads. What the cache holds of other shards is dropped from it.
    """
    key = keys.cache(f"{name}.parquet")
    full = schema.append(pa.field("shard", pa.string()))
    known, held = _cached(store, key, full)
    missing = [shard for shard in readers if shard not in held]
    gone = held.difference(readers)
    if gone:
        known = known.filter(pc.is_in(known["shard"], pa.array(sorted(set(readers)), pa.string())))
    if missing:

        def one(shard: str) -> pa.Table:
            rows = readers[shard]().cast(schema)
            return rows.append_column("shard", pa.array([shard] * len(rows), pa.string()))

        with ThreadPoolExecutor(READERS) as pool:
            known = pa.concat_tables([known, *pool.map(one, missing)])
    if missing or gone:
        out = io.BytesIO()
        told = {_HELD: json.dumps(sorted(readers)).encode()}
        pq.write_table(known.replace_schema_metadata(told), out, compression="zstd")
        keep(store, key, out.getvalue())
    return known


def _cached(store: Store, key: str, schema: pa.Schema) -> tuple[pa.Table, set[str]]:
    try:
        found = pq.read_table(io.BytesIO(store.get(key)), use_threads=False, pre_buffer=False)
        held = set(json.loads(found.schema.metadata[_HELD]))
        return found.replace_schema_metadata(None).cast(schema), held
    except (NotFoundError, pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return schema.empty_table(), set()  # none yet, or a damaged one: it is made anew
