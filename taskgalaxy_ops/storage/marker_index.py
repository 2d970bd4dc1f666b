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
from taskgalaxy_ops.storage.shards import StageOutput, StageOutputs

READERS = 16  # objects fetched at once
_KEY = keys.cache("markers.json")
_VERSION = 1  # of what is kept: another one is made anew


@dataclass(frozen=True, slots=True)
class MarkerSummary:
    """A marker without its hashes."""

    stats: Mapping[str, Any]
    rows: Mapping[str, int]  # by table
    data: Sequence[str]  # keys of its tables
    made_of: Mapping[str, Any] = field(default_factory=dict)  # {}: not recorded


def marker_summaries(store: Store, stage_outputs: Iterable[StageOutput]) -> dict[StageOutput, MarkerSummary]:
    """Of these shards; markers that are not in the cache are read and kept there, those that are gone are left out.

    ``shards``: all of their image shards' stages: what else the cache holds of these image shards is dropped from it.
    Raises DamageError.
    """
    wanted = list(stage_outputs)
    known = _cached(store)
    missing = [stage_output for stage_output in wanted if stage_output.marker not in known]
    if missing:
        reader = StageOutputs(store)

        def one(stage_output: StageOutput) -> tuple[str, dict[str, Any] | None]:
            try:
                body = reader.marker(stage_output)
            except NotFoundError:  # deleted since it was listed
                return stage_output.marker, None
            return stage_output.marker, _to_json(body)

        with ThreadPoolExecutor(READERS) as pool:
            known.update((name, body) for name, body in pool.map(one, missing) if body is not None)
        names, shards = (
            {stage_output.marker for stage_output in wanted},
            {keys.markers(stage_output.shard) for stage_output in wanted},
        )
        _keep(store, {n: d for n, d in known.items() if n in names or f"{n.rpartition('/')[0]}/" not in shards})
    return {
        stage_output: MarkerSummary(**known[stage_output.marker])
        for stage_output in wanted
        if stage_output.marker in known
    }


def add(store: Store, markers: Mapping[str, Mapping[str, Any]]) -> None:
    """Put markers that were just written into the cache: nobody has to read them. Of racing writers one wins."""
    _keep(store, {**_cached(store), **{name: _to_json(body) for name, body in markers.items()}})


def _to_json(body: Mapping[str, Any]) -> dict[str, Any]:
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
