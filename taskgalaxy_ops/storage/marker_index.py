"""What markers say of their shards, put together in one object, so that nobody reads a thousand markers to add up.

A cache: it holds the markers that somebody has read before, knows no more than they, and may be deleted.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.shards import Shard, Shards

READERS = 16  # objects fetched at once
_KEY = keys.cache("markers.json")
_VERSION = 1  # of what is kept: another one is made anew


@dataclass(frozen=True, slots=True)
class Digest:
    """A marker without its hashes."""

    stats: Mapping[str, Any]
    rows: Mapping[str, int]  # by table
    data: Sequence[str]  # keys of its tables
    made_of: Mapping[str, Any] = field(default_factory=dict)  # {}: not recorded


def digests(store: Store, shards: Iterable[Shard]) -> dict[Shard, Digest]:
    """Of these shards; markers that are not in the cache are read and kept there, those that are gone are left out.

    ``shards``: all of their homes' stages: what else the cache holds of these homes is dropped from it. Raises
    DamageError.
    """
    wanted = list(shards)
    known = _cached(store)
    missing = [shard for shard in wanted if shard.marker not in known]
    if missing:
        reader = Shards(store)

        def one(shard: Shard) -> tuple[str, dict[str, Any] | None]:
            try:
                body = reader.marker(shard)
            except NotFoundError:  # deleted since it was listed
                return shard.marker, None
            return shard.marker, _plain(body)

        with ThreadPoolExecutor(READERS) as pool:
            known.update((name, body) for name, body in pool.map(one, missing) if body is not None)
        names, homes = {shard.marker for shard in wanted}, {keys.markers(shard.home) for shard in wanted}
        _keep(store, {n: d for n, d in known.items() if n in names or f"{n.rpartition('/')[0]}/" not in homes})
    return {shard: Digest(**known[shard.marker]) for shard in wanted if shard.marker in known}


def add(store: Store, markers: Mapping[str, Mapping[str, Any]]) -> None:
    """Put markers that were just written into the cache: nobody has to read them. Of racing writers one wins."""
    _keep(store, {**_cached(store), **{name: _plain(body) for name, body in markers.items()}})


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    tables = body["tables"]
    return {
        "stats": body["stats"],
        "rows": {name: ref["rows"] for name, ref in tables.items()},
        "data": [ref["key"] for ref in tables.values()],
        "made_of": body.get("made_of", {}),
    }


def _keep(store: Store, found: Mapping[str, Any]) -> None:
    keep(store, _KEY, gzip.compress(json.dumps({"v": _VERSION, "markers": found}).encode(), 1, mtime=0))


def _cached(store: Store) -> dict[str, Any]:
    try:
        found = json.loads(gzip.decompress(store.get(_KEY)))
        return dict(found["markers"]) if found["v"] == _VERSION else {}
    except (NotFoundError, ValueError, OSError, EOFError, KeyError, TypeError):  # none, or a damaged one: made anew
        return {}


def keep(store: Store, key: str, content: bytes) -> None:
    """Write a cache. One who may only read does without."""
    with contextlib.suppress(StoreError):
        store.replace(key, content)
