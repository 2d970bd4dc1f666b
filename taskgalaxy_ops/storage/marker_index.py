"""One cached object with the content of all markers, so that sums over a store do not read a thousand markers.

A cache: it holds copies of markers that were read or written before, and it may be deleted.
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
_VERSION = 1  # of the cache's format; a cache of another version is built anew


@dataclass(frozen=True, slots=True)
class MarkerSummary:
    """The content of a stage output's marker, without hashes."""

    stats: Mapping[str, Any]
    rows: Mapping[str, int]  # by table
    data: Sequence[str]  # keys of its tables
    made_of: Mapping[str, Any] = field(default_factory=dict)  # {}: the marker does not record it


def marker_summaries(store: Store, stage_outputs: Iterable[StageOutput]) -> dict[StageOutput, MarkerSummary]:
    """The markers of these stage outputs. Markers that the cache lacks are read and added to it.

    A stage output whose marker was deleted is left out. ``stage_outputs`` must hold all stage outputs of the image
    prefixes that it mentions: other entries of these image prefixes are dropped from the cache. Raises DamageError.
    """
    wanted = list(stage_outputs)
    cached = _cached(store)
    missing = [stage_output for stage_output in wanted if stage_output.marker not in cached]
    if missing:
        reader = StageOutputs(store)

        def read(stage_output: StageOutput) -> tuple[str, dict[str, Any] | None]:
            try:
                body = reader.marker(stage_output)
            except NotFoundError:  # deleted since it was listed
                return stage_output.marker, None
            return stage_output.marker, _to_json(body)

        with ThreadPoolExecutor(READERS) as pool:
            cached.update((name, body) for name, body in pool.map(read, missing) if body is not None)
        markers = {stage_output.marker for stage_output in wanted}
        prefixes = {keys.markers(stage_output.shard) for stage_output in wanted}
        _keep(store, {n: d for n, d in cached.items() if n in markers or f"{n.rpartition('/')[0]}/" not in prefixes})
    return {
        stage_output: MarkerSummary(**cached[stage_output.marker])
        for stage_output in wanted
        if stage_output.marker in cached
    }


def add(store: Store, markers: Mapping[str, Mapping[str, Any]]) -> None:
    """Add new markers, by key, to the cache, so that nobody reads them again. One of racing writers wins."""
    _keep(store, {**_cached(store), **{name: _to_json(body) for name, body in markers.items()}})


def _to_json(body: Mapping[str, Any]) -> dict[str, Any]:
    tables = body["tables"]
    return {
        "stats": body["stats"],
        "rows": {name: ref["rows"] for name, ref in tables.items()},
        "data": [ref["key"] for ref in tables.values()],
        "made_of": body.get("made_of", {}),
    }


def _keep(store: Store, entries: Mapping[str, Any]) -> None:
    keep(store, _KEY, gzip.compress(json.dumps({"v": _VERSION, "markers": entries}).encode(), 1, mtime=0))


def _cached(store: Store) -> dict[str, Any]:
    try:
        cache = json.loads(gzip.decompress(store.get(_KEY)))
        return dict(cache["markers"]) if cache["v"] == _VERSION else {}
    except (NotFoundError, ValueError, OSError, EOFError, KeyError, TypeError):  # none, or damaged: built anew
        return {}


def keep(store: Store, key: str, content: bytes) -> None:
    """Write a cache. A process that may only read the store goes on without it."""
    with contextlib.suppress(StoreError):
        store.replace(key, content)
