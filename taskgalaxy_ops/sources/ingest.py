"""Ingest: scan a source's files, keep its images, and register them in image shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import FileReject, Reason
from taskgalaxy_ops.settings import SourceSettings, valid_name
from taskgalaxy_ops.sources.checking import scan
from taskgalaxy_ops.sources.listing import Listing, source_files
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.parquet import rows_hash
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReceipt:
    """What a scan of a source came to: files = images + rejects."""

    source: str
    files: int
    images: int
    new_images: int
    new_shards: int
    rejects: Sequence[FileReject]


def ingest(
    workspace: Workspace,
    source: str,
    *,
    chosen: SourceSettings | None = None,
    pick: Callable[[str], bool] | None = None,
    progress: Progress | None = None,
) -> IngestReceipt:
    """Scan one source and register what it holds; ``pick`` chooses among its files, by name.

    Where it lies: as ``chosen`` says, else the settings, else its last scan. A file that is, by its listing, what the
    last scan found is not read again. Raises SourceError if the source is unknown, cannot be read, or, scanned whole,
    holds no usable image.
    """
    progress = progress or Silent()
    if not valid_name(source):
        raise SourceError(f"source {source!r}: no name for a source. Use 1 to 100 characters, none of them a slash.")
    chosen = chosen or source_settings(workspace, source)
    registry, settings = workspace.registry, workspace.settings.ingest
    with source_files(source, chosen, workspace.s3_options) as files, ScanStaging(source) as found:
        if pick:
            files.keep(pick)
        progress.stage(f"ingest {source}", len(files), "files")
        if pick is None and (before := _as_before(workspace, source, chosen, files)):
            progress.advance(f"ingest {source}", len(files), rejects=len(before.rejects))
            return before
        found.remember(*registry.last_scan(source))
        scan(
            files,
            found,
            registry.known(),
            registry.denied(),
            settings,
            lambda image, raw: _keep_blob(workspace, image, raw),
            lambda rejected: progress.advance(f"ingest {source}", rejects=int(rejected)),
        )
        if not found.claims and pick is None:  # of a few picked ones all may be broken
            reasons = Counter(reject.reason for reject in found.file_rejects())
            named = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
            raise SourceError(f"source {source!r}: none of its {len(files)} files is a usable image ({named}).")
        shards = registry.register(
            chosen.location,
            found,
            settings.shard_images,
            _looked_for(chosen),
            files.versions(),
        )
        denied = registry.denied()
        taken = found.among(denied)
        for _, image in taken:
            workspace.store.delete(
                keys.blob(image)
            )  # taken down while it was scanned, or left by a scan that was killed
        rejects = list(found.file_rejects(denied))
        return IngestReceipt(
            source=source,
            files=len(files),
            images=found.claims - len(taken),
            new_images=found.images,
            new_shards=len(shards),
            rejects=rejects,
        )


_BY_SETTINGS = {Reason.TOO_MANY_PIXELS, Reason.TOO_SMALL, Reason.UNREADABLE}  # rejects that another look may let pass


def _as_before(workspace: Workspace, source: str, chosen: SourceSettings, files: Listing) -> IngestReceipt | None:
    """The receipt of a scan that would find what the last one did, by the listing alone; None where it may not."""
    registry = workspace.registry
    scan = registry.scans().get(source)
    if scan is None or scan.files is None or (scan.location, scan.settings) != (chosen.location, _looked_for(chosen)):
        return None
    if rows_hash(files.versions()) != scan.files.rows_hash or not all(each.version for each in files.versions()):
        return None
    rejects = list(registry.rejects(source))
    if not _BY_SETTINGS.isdisjoint(reject.reason for reject in rejects):
        return None
    return IngestReceipt(
        source=source, files=len(files), images=len(files) - len(rejects), new_images=0, new_shards=0, rejects=rejects
    )


def _looked_for(chosen: SourceSettings) -> dict[str, Any]:
    """How a source is looked for, as a scan keeps it."""
    return chosen.model_dump(mode="json", exclude={"location"}, exclude_defaults=True)


def source_settings(workspace: Workspace, source: str) -> SourceSettings:
    """Where a source lies: as the settings say, else as its last scan did. Raises SourceError if neither knows it."""
    if source in workspace.settings.sources:
        return workspace.settings.sources[source]
    scans = workspace.registry.scans()
    if source in scans:
        return SourceSettings(location=scans[source].location, **scans[source].settings)
    names = ", ".join(sorted({*workspace.settings.sources, *scans})) or "none"
    raise SourceError(f"source {source!r}: not in the settings (there: {names}). Add it under `sources`.")


def _keep_blob(workspace: Workspace, image: str, raw: bytes) -> None:
    workspace.store.replace(keys.blob(image), raw)  # also where it lies already: young again, it is no garbage
