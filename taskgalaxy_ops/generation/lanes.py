"""Lanes: a source's image shards, divided into a few groups that workers process in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Lane:
    """One of ``of`` groups of image shards with about equally many images; the same group each time it is made."""

    number: int  # from 0
    of: int
    registry: int  # number of the registry's entry up to which image shards are divided: later ones change nothing
    sources: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON: numbers and names only, so that its size does not grow with the number of images."""
        return {**asdict(self), "sources": list(self.sources)}


def lanes(workspace: Workspace, sources: Sequence[str], count: int) -> list[Lane]:
    """At most ``count`` lanes for these sources, none of them empty. Raises SourceError if one is not ingested."""
    registry = workspace.registry.last()
    shards = len(shards_of(workspace, sources, registry))
    return [Lane(number, min(count, shards), registry, tuple(sources)) for number in range(min(count, shards))]


def with_candidates(workspace: Workspace, sources: Sequence[str]) -> list[str]:
    """These sources, then the other live ones that were run before: targets count the images of all of them."""
    view = workspace.snapshot()
    embedded = {
        shard.id
        for shard in view.registry.shards()
        if any(stage == "embed" for stage, _ in view.stage_outputs.committed(shard.id))
    }
    others = (name for name in view.registry.scans() if name not in sources)
    return [*sources, *(name for name in others if any(s.id in embedded for s in view.registry.shards_of([name])))]


def shards_of_lane(workspace: Workspace, lane: Lane) -> list[ImageShard]:
    """A lane's image shards in order of id. They are dealt out by size, so that lanes take about equally long."""
    shards = sorted(shards_of(workspace, lane.sources, lane.registry), key=lambda shard: (-shard.cut, shard.id))
    return sorted(shards[lane.number :: lane.of], key=lambda shard: shard.id)


def shards_of(workspace: Workspace, sources: Sequence[str] | None, until: int | None = None) -> list[ImageShard]:
    """The image shards that contain images of these sources (None: of all live sources).

    until: the number of the registry's entry up to which it is read. Raises SourceError for a source that is not
    ingested.
    """
    scans = workspace.registry.scans(until)
    for name in sources or ():
        if name not in scans:
            known = ", ".join(scans) or "none"
            raise SourceError(f"source {name!r}: not ingested (there: {known}). Run `taskgalaxy ingest` first.")
    return workspace.registry.shards_of(sources, until)
