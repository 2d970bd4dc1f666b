"""Watch: find the sources that are new or have changed since their last scan. Lists files, and reads none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskgalaxy_ops.errors import SourceError, StoreError
from taskgalaxy_ops.settings import SourceSettings, valid_name
from taskgalaxy_ops.sources import ingest
from taskgalaxy_ops.storage import connect
from taskgalaxy_ops.storage.parquet import rows_hash
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class Watched:
    """The sources by state: changed, the same, or failed."""

    changed: dict[str, SourceSettings] = field(default_factory=dict)  # new ones included
    same: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # by source or parent folder: why it cannot be listed


def watch(workspace: Workspace) -> Watched:
    """List the settings' sources, the registered ones, and the folders below ``airflow.watch_parents``."""
    scans = workspace.registry.scans()
    sources, failed = located(workspace)
    watched = Watched(failed=failed)
    for name, chosen in sorted(sources.items()):
        try:
            with ingest.listed(workspace, name, chosen) as files:
                now = rows_hash(files.versions())
        except (SourceError, StoreError) as error:  # one source that cannot be listed does not hide the others
            watched.failed[name] = str(error)
            continue
        scan = scans.get(name)
        if scan is None or scan.files is None or scan.files.rows_hash != now or scan.location != chosen.location:
            watched.changed[name] = chosen
        else:
            watched.same.append(name)
    return watched


def located(workspace: Workspace) -> tuple[dict[str, SourceSettings], dict[str, str]]:
    """The settings of each source by name, without listing it; and why other places cannot be sources."""
    sources = _known(workspace)
    below, failed = located_below(workspace, workspace.settings.airflow.watch_parents)
    return {**below, **sources}, failed


def located_below(workspace: Workspace, parents: Sequence[str]) -> tuple[dict[str, SourceSettings], dict[str, str]]:
    """The settings of each source that lies directly below one of these parents, registered or new, by name.

    Returns them, and why other places cannot be sources.
    """
    known = _known(workspace)
    sources: dict[str, SourceSettings] = {}
    failed: dict[str, str] = {}
    for parent in parents:
        try:
            for name, location in _below(workspace, parent).items():
                chosen = known.get(name) or sources.get(name) or SourceSettings(location=location)
                if not valid_name(name):
                    failed[location] = "the folder's name is no name for a source: rename it"
                elif chosen.location != location:
                    failed[location] = f"a source {name!r} lies at {chosen.location} already: rename the folder"
                else:
                    sources[name] = chosen
        except SourceError as error:
            failed[parent] = str(error)
    return sources, failed


def _known(workspace: Workspace) -> dict[str, SourceSettings]:
    names = {**workspace.registry.scans(), **workspace.settings.sources}
    return {name: ingest.source_settings(workspace, name) for name in names}


def _below(workspace: Workspace, parent: str) -> dict[str, str]:
    """The direct subfolders of a parent that hold files, by name."""
    if parent.startswith("s3://"):
        store = connect(parent, **workspace.s3_options)
        names = sorted({listed.key.split("/")[0] for listed in store.list("") if "/" in listed.key})
        return {name: f"{parent.rstrip('/')}/{name}" for name in names}
    folder = Path(parent.removeprefix("file://"))
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder. Name one whose subfolders are sources (airflow.watch_parents).")
    return {path.name: str(path) for path in sorted(folder.iterdir()) if path.is_dir()}
