"""Lanes: a source's image shards dealt into a modest number of groups, which workers take side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.storage.registry.state import Home
from taskgalaxy_ops.workspace import Galaxy


@dataclass(frozen=True, slots=True)
class Lane:
    """One of ``of`` groups of about equally many images. The registry's number makes it the same group each time."""

    number: int  # from 0
    of: int
    registry: int  # number of the registry's entry up to which homes are dealt
    sources: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """As JSON: numbers and names, whatever the number of images."""
        return {**asdict(self), "sources": list(self.sources)}


def lanes(galaxy: Galaxy, sources: Sequence[str], count: int) -> list[Lane]:
    """At most ``count`` lanes for these sources, none of them empty. Raises SourceError."""
    registry = galaxy.registry.last()
    homes = len(homes_of(galaxy, sources, registry))
    return [Lane(number, min(count, homes), registry, tuple(sources)) for number in range(min(count, homes))]


def homes_of_lane(galaxy: Galaxy, lane: Lane) -> list[Home]:
    """A lane's homes: dealt by size, so that lanes take about equally long; in order of id."""
    homes = sorted(homes_of(galaxy, lane.sources, lane.registry), key=lambda home: (-home.cut, home.home))
    return sorted(homes[lane.number :: lane.of], key=lambda home: home.home)


def homes_of(galaxy: Galaxy, sources: Sequence[str] | None, until: int | None = None) -> list[Home]:
    """The whole homes that these sources' images live in; None: those of all live sources. Raises SourceError.

    until: as the registry stood at that number.
    """
    scans = galaxy.registry.scans(until)
    for name in sources or ():
        if name not in scans:
            there = ", ".join(scans) or "none"
            raise SourceError(f"source {name!r}: not ingested (there: {there}). Run `taskgalaxy ingest` first.")
    return galaxy.registry.homes_of(sources, until)
