"""Lanes: a source's image shards dealt into a modest number of groups, which workers take side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Lane:
    """One of ``of`` groups of about equally many images. The registry's number makes it the same group each time."""

    number: int  # from 0
    of: int
    registry: int  # number of the registry's entry up to which image shards are dealt
    sources: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON: numbers and names, whatever the number of images."""
        return {**asdict(self), "sources": list(self.sources)}


def lanes(workspace: Workspace, sources: Sequence[str], count: int) -> list[Lane]:
    """At most ``count`` lanes for these sources, none of them empty. Raises SourceError."""
    registry = workspace.registry.last()
    shards = len(shards_of(workspace, sources, registry))
    return [Lane(number, min(count, shards), registry, tuple(sources)) for number in range(min(count, shards))]


def shards_of_lane(workspace: Workspace, lane: Lane) -> list[ImageShard]:
    """A lane's image shards: dealt by size, so that lanes take about equally long; in order of id."""
    shards = sorted(shards_of(workspace, lane.sources, lane.registry), key=lambda shard: (-shard.cut, shard.id))
    return sorted(shards[lane.number :: lane.of], key=lambda shard: shard.id)


def shards_of(workspace: Workspace, sources: Sequence[str] | None, until: int | None = None) -> list[ImageShard]:
    """The whole image shards that these sources' images live in; None: those of all live sources. Raises SourceError.

    until: as the registry stood at that number.
    """
    scans = workspace.registry.scans(until)
    for name in sources or ():
        if name not in scans:
            there = ", ".join(scans) or "none"
            raise SourceError(f"source {name!r}: not ingested (there: {there}). Run `taskgalaxy ingest` first.")
    return workspace.registry.shards_of(sources, until)
