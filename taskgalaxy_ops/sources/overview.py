"""What is known of each source without scanning it: of the settings' ones, and of those that are registered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskgalaxy_ops.sources.kinds import kind_of
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """A source, and the outcome of its last scan."""

    source: str
    kind: str
    location: str
    images: int | None  # None: it is not registered yet
    copied: bool = True  # False: its images are read where they lie
    rejects: Mapping[str, int] = field(default_factory=dict)  # by reason
    left_out: Mapping[str, int] | None = None  # by kind (``sources.left_out``)
    scanned: float | None = None  # Unix seconds, when a scan last found something new; None: not known


def summaries(workspace: Workspace) -> list[SourceSummary]:
    """All sources in order of name. Lists no source."""
    registry, configured = workspace.registry, workspace.settings.sources
    scans = registry.scans()
    found = []
    for name in sorted({*scans, *configured}):
        scan = scans.get(name)
        location = scan.location if scan else configured[name].location
        copied = scan.settings.get("copy", True) if scan else configured[name].copied
        rejects = Counter(str(each.reason) for each in registry.rejects(name)) if scan else Counter[str]()
        age = registry.scan_age(name) if scan else None
        found.append(
            SourceSummary(
                source=name,
                kind=kind_of(location)[0],
                location=location,
                copied=copied,
                images=scan.claims.rows + scan.rejects.rows - rejects.total() if scan else None,
                rejects=dict(sorted(rejects.items())),
                left_out=scan.left_out if scan else None,
                scanned=None if age is None else time.time() - age,
            )
        )
    return found
