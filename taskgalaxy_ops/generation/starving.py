"""``match.prefer_starving``: an image with many candidates goes to task types that have few samples.

What they have is what the newest entry of the log of coverage says. A run records one where there is none; later ones
are recorded by a person (`taskgalaxy coverage --record`), since each changes what images are matched with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.storage.coverage_log import CoverageEntry, CoverageLog
from taskgalaxy_ops.workspace import Workspace

_DECIMALS = 6  # as a similarity's, so that a mathematical library's rounding decides nothing


def handicaps(workspace: Workspace) -> Mapping[TaskTypePath, float] | None:
    """By task type, what is taken off its similarity: the weight times log10(1 + samples). None: it is switched off."""
    weight = workspace.settings.match.prefer_starving
    if weight is None:
        return None
    return {path: round(weight * math.log10(1 + n), _DECIMALS) for path, n in entry(workspace).samples.items()}


def entry(workspace: Workspace) -> CoverageEntry:
    """The newest entry as of the first call for this workspace; where none is recorded, what a run would record."""
    found = workspace.coverage_entry
    if found is None:
        found = workspace.__dict__["coverage_entry"] = _now(workspace)
    return found


def record(workspace: Workspace, entry: CoverageEntry, *, first: bool = False) -> CoverageEntry:
    """Record an entry, unless the newest one says the same; returns the newest. first: only if there is none."""
    found = CoverageLog(workspace.store).record(entry.taxonomy, entry.samples, first=first)
    workspace.__dict__["coverage_entry"] = found
    return found


def ensure_recorded(workspace: Workspace) -> None:
    """Record an entry if matching needs one and there is none. Whoever matches and writes begins with it."""
    workspace.__dict__.pop("coverage_entry", None)
    if workspace.settings.match.prefer_starving is not None and workspace.coverage_entry is None:
        record(workspace, entry(workspace), first=True)


def _now(workspace: Workspace) -> CoverageEntry:
    """What task types have without any preference."""
    from taskgalaxy_ops.generation.coverage import as_entry, coverage  # they run stages, which match

    plain = workspace.settings.match.model_copy(update={"prefer_starving": None})
    return as_entry(coverage(workspace.with_settings(match=plain)))
