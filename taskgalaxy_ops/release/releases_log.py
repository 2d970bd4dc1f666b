"""The releases' log, read: which releases are complete, and what was withdrawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.workspace import Workspace

BEFORE_RENDITIONS = 1  # the code version whose releases hold the sources' files; the second's lack files of the card


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A complete release, as its entries in the log describe it."""

    version: int
    content: str  # fingerprint of its content
    manifest_sha256: str
    samples: int
    task_types: int
    images: int
    partial: bool
    inputs: str = ""  # fingerprint of its inputs, if all of them were complete; "": not known
    rejects: Mapping[str, int] = field(default_factory=dict)  # accepted pairs that were left out, by reason
    withdrawn: int = 0  # samples that were withdrawn from it later, with their images
    code: int = BEFORE_RENDITIONS  # code version that made it; older entries of the log do not say it

    @property
    def funnel(self) -> StageCounts:
        """The counts of the release stage: from accepted pairs to samples."""
        left_out = sum(self.rejects.values())
        return StageCounts("release", self.samples + left_out, self.samples, self.rejects)

    @property
    def name(self) -> str:
        return f"v{self.version:06d}"


def published(workspace: Workspace) -> list[Published]:
    """Every complete release, oldest first."""
    return complete(Log(workspace.store, keys.RELEASES_LOG).read())


def chosen(workspace: Workspace, name: str | None, what: str) -> Published:
    """The complete release of this name (v000001), or the latest. Raises SourceError if there is none, for ``what``."""
    releases = published(workspace)
    if not releases:
        raise SourceError(f"{what}: nothing has been released. Run `taskgalaxy release` (or galaxy_release) first.")
    found = releases[-1:] if name is None else [one for one in releases if one.name == name]
    if not found:
        raise SourceError(f"{what}: there is no release {name!r}. There are {', '.join(one.name for one in releases)}.")
    return found[0]


def complete(entries: list[LogEntry]) -> list[Published]:
    """The complete releases of these entries, oldest first."""
    releases: dict[int, Published] = {}
    for entry in entries:
        body = {name: value for name, value in entry.body.items() if name != "kind"}
        if entry.body["kind"] == "done":
            releases.setdefault(body["version"], Published(**body))
        elif entry.body["kind"] == "withdraw" and body["version"] in releases:
            releases[body["version"]] = replace(releases[body["version"]], **body)
    return list(releases.values())
