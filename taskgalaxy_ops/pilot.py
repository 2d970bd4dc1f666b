"""Pilot: a few images through the whole chain, in the store itself, so that nothing of it is paid for twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.harvest import Harvest
from taskgalaxy_ops.overview import forecast, sample_names
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.sources.files import source_files


@dataclass(frozen=True, slots=True)
class PilotResult:
    """The rows of the pilot's images, and what all files would come to."""

    harvest: Harvest
    forecast: dict[str, Any]


def pilot(galaxy: Galaxy, limit: int, progress: Progress) -> PilotResult:
    """Ingest ``limit`` files, drawn by hash from all sources of the settings alike, and run them.

    A pilot that ended early is gone on with. Raises SourceError if a source has been ingested whole already: then
    `taskgalaxy plan` tells what is left to pay.
    """
    sources = galaxy.settings.sources
    if not sources:
        raise SourceError("pilot: the settings name no source. Add one under `sources`: name, then `location`.")
    files = {
        name: [f"{name}/{file.name}" for file in source_files(name, source, galaxy.s3_options)]
        for name, source in sources.items()
    }
    chosen = sample_names([file for names in files.values() for file in names], limit)
    scans = galaxy.registry.scans()
    for name, scan in scans.items():
        if name in files and scan.claims.rows + scan.rejects.rows > len(chosen.intersection(files[name])):
            raise SourceError(
                f"pilot: source {name!r} was ingested already, with more files than the pilot's. "
                "See `taskgalaxy plan` for what a run would ask, or give another --store."
            )

    for name, names in files.items():
        if chosen.intersection(names):
            pipeline.ingest(galaxy, name, pick=lambda file, name=name: f"{name}/{file}" in chosen, progress=progress)  # type: ignore[misc]
    harvest = Harvest(galaxy, pipeline.generate(galaxy, progress=progress))
    return PilotResult(harvest, forecast(harvest, sum(map(len, files.values()))))
