"""The sources that ship, each a folder that is made on first use."""

from __future__ import annotations

import os
from pathlib import Path

from taskgalaxy_ops.sources.kinds import Place
from taskgalaxy_ops.sources.kinds.folder import FolderSource


def opened(place: Place) -> FolderSource:
    """The folder of a source that ships. Raises SourceError for an unknown name or a missing package."""
    return FolderSource(place, built(place.rest, place.limit))


def built(name: str, limit: int | None) -> Path:
    """The folder of a source that ships; it is made on first use, below ``TASKGALAXY_CACHE`` (``~/.cache/taskgalaxy``).

    Raises SourceError for an unknown name or a missing package.
    """
    from taskgalaxy_ops.sources.builtin import build

    cache = Path(os.environ.get("TASKGALAXY_CACHE") or Path.home() / ".cache" / "taskgalaxy")
    return build(name, cache / (f"{name}-{limit}" if limit else name), limit)
