"""Pilot: run a few images through all stages, in the store itself, so that nothing is paid for twice.

Their costs give an estimate of the cost of all files. For registered images, forecast.py estimates what is left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.generation.form_shares import questions_of
from taskgalaxy_ops.generation.forms import FORMS
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.ingest import listed
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PilotResult:
    """The results of the pilot's images, and the forecast for all files; None if no image has all its answers."""

    results: RunResults
    full_bill: dict[str, Any] | None


def pilot(workspace: Workspace, limit: int, progress: Progress) -> PilotResult:
    """Ingest ``limit`` files, drawn by hash from all sources of the settings alike, and run them.

    A pilot that ended early is continued. Raises SourceError if a source has been ingested with more files than the
    pilot's: then `taskgalaxy plan` tells what is left to pay.
    """
    sources = workspace.settings.sources
    if not sources:
        raise SourceError("pilot: the settings name no source. Add one under `sources`: name, then `location`.")
    files = {name: _names(workspace, name, source) for name, source in sources.items()}
    chosen = sample_names([file for names in files.values() for file in names], limit)
    scans = workspace.registry.scans()
    for name, scan in scans.items():
        if name in files and scan.claims.rows + scan.rejects.rows > len(chosen.intersection(files[name])):
            raise SourceError(
                f"pilot: source {name!r} was ingested already, with more files than the pilot's. "
                "See `taskgalaxy plan` for what a run would ask, or give another --store."
            )

    for name, names in files.items():
        if chosen.intersection(names):
            pipeline.ingest(workspace, name, pick=lambda file, name=name: f"{name}/{file}" in chosen, progress=progress)  # type: ignore[misc]
    results = RunResults(workspace, pipeline.generate(workspace, progress=progress))
    return PilotResult(results, extrapolated(results, sum(map(len, files.values()))))


def _names(workspace: Workspace, name: str, source: SourceSettings) -> list[str]:
    """A source's images by name, before which its own name stands."""
    with listed(workspace, name, source) as files:
        files.look()
        return [f"{name}/{file.name}" for file in files]


def extrapolated(results: RunResults, files: int) -> dict[str, Any] | None:
    """The cost of ``files`` files, of which the run's images are a random sample, with a 95 % interval over images.

    Each image's share of a stage's cost is in proportion to its units. The interval is the normal one of a mean
    (1.96 standard errors), which is wide for few images. Images that wait for an answer are left out, since what they
    will cost is not known; None if all of them do.
    """
    paid = results.paid
    unfinished = _unfinished(results)
    if not results.images:
        raise SourceError("pilot: no image passed, so there is nothing to forecast from.")
    images = sorted(image for image in results.images if image not in unfinished)
    if not images:
        return None
    units: dict[str, Counter[str]] = {stage: Counter() for stage in ASKING}
    for row in results.relevant:
        units["filter"][row.image] += 1
    for reject in results.rejects:
        if reject.stage != "vote":
            units[reject.stage][reject.image] += 1
    for pair in results.pairs.values():
        units["write"][pair.image] += 1
        units["vote"][pair.image] += len(results.votes.get(pair.pair, ()))
    kept = next(counts for counts in results.funnel if counts.stage == "ingest")
    expected_images = files * kept.units_out / kept.units_in

    def full(amount: Mapping[str, float]) -> dict[str, float]:
        costs = [sum(amount.get(s, 0.0) * units[s][i] / max(1, units[s].total()) for s in ASKING) for i in images]
        mean = sum(costs) / len(costs)
        spread = math.sqrt(sum((c - mean) ** 2 for c in costs) / max(1, len(costs) - 1) / len(costs))
        low, high = max(0.0, mean - 1.96 * spread), mean + 1.96 * spread
        return {name: value * expected_images for name, value in (("low", low), ("expected", mean), ("high", high))}

    tallies = {stage: paid.by_stage.get(stage, Tally()) for stage in ASKING}
    samples = sum(pair.image not in unfinished for pair in results.samples)
    return {
        "files": files,
        "images": round(expected_images),
        "pilot": {"images": len(results.images), "answered": len(images)},
        "samples": round(samples / len(images) * expected_images),
        "calls": full({stage: float(tally.calls) for stage, tally in tallies.items()}),
        "cost": full({stage: tally.cost / NANO for stage, tally in tallies.items()}),
        "list_cost": full({stage: tally.list_cost / NANO for stage, tally in tallies.items()}),
    }


def _unfinished(results: RunResults) -> set[ImageId]:
    """The images with a unit that has no answer yet."""
    waiting: Counter[tuple[str, ImageId]] = Counter()
    targets = results.result.targets
    for shard, output in results.result.matches.items():
        matches = targets.rows(shard) if targets else results.workspace.stage_outputs.load(output, "matches", Match)
        waiting.update(("filter", match.image) for match in matches)
    questions = questions_of(results.workspace.settings.write)
    for row in results.relevant:
        waiting["filter", row.image] -= 1
        waiting["write", row.image] += questions(row.task_type)
    further = results.workspace.settings.write.answers - 1
    for pair in results.pairs.values():
        waiting["write", pair.image] -= 1
        waiting["write", pair.image] += further if pair.number is None and FORMS.get(pair.variant).again else 0
        waiting["vote", pair.image] += 1
    waiting.subtract(("vote", pair.image) for pair in results.samples)
    waiting.subtract((reject.stage, reject.image) for reject in results.rejects)
    return {image for (_, image), number in waiting.items() if number > 0}


def sample_names(names: Sequence[str], count: int) -> set[str]:
    """``count`` of the names, drawn by hash: the same ones each time, whatever their order."""
    return set(sorted(names, key=lambda name: draw("pilot", name))[:count])
