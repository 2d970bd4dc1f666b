"""Ingest: scan a source's files, store its images, and register them in image shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import FileReject, FileVersion, Image, ImageId, Reason
from taskgalaxy_ops.settings import SourceSettings, valid_name
from taskgalaxy_ops.settings.sources import USUAL_SUFFIXES
from taskgalaxy_ops.sources import left_out
from taskgalaxy_ops.sources.checking import Images, scan
from taskgalaxy_ops.sources.content import suffix_of
from taskgalaxy_ops.sources.listing import Listing, no_image, source_files
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.parquet import rows_hash
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReceipt:
    """The outcome of a scan of a source: files = images + rejects. What was left out is no file of it."""

    source: str
    files: int
    images: int
    new_images: int
    new_shards: int
    rejects: Sequence[FileReject]
    left_out: Mapping[str, int] = field(default_factory=dict)  # by kind, as ``sources.left_out`` names them
    unusual: Mapping[str, int] = field(default_factory=dict)  # by suffix: images of none of the usual suffixes


def ingest(
    workspace: Workspace,
    source: str,
    *,
    chosen: SourceSettings | None = None,
    pick: Callable[[str], bool] | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> IngestReceipt:
    """Scan one source and register its images.

    chosen: where it lies; None: as the settings say, or else its last scan. pick: chooses files by name; None: all. A
    file that has not changed since the last scan, by its listing, is not read again, unless ``again``: then every file
    is, and copies that the store has lost, or that are damaged, are written anew.
    Raises SourceError if the source is unknown, cannot be read, or, unless ``pick`` is given, holds no usable image.
    """
    progress = progress or Silent()
    if not valid_name(source):
        raise SourceError(f"source {source!r}: no name for a source. Use 1 to 100 characters, none of them a slash.")
    chosen = chosen or source_settings(workspace, source)
    registry, settings = workspace.registry, workspace.settings.ingest
    with (
        listed(workspace, source, chosen) as files,
        ScanStaging(source, by_reference=not chosen.copied) as staging,
    ):
        if pick:
            files.keep(pick)
        if pick is None and not again and (before := _unchanged_receipt(workspace, source, chosen, files)):
            progress.stage(f"ingest {source}", before.files, "files")
            progress.advance(f"ingest {source}", before.files, rejects=len(before.rejects))
            return before
        if not again:
            staging.remember(*registry.last_scan(source), registry.rejects(source), registry.pages(source))
        files.look(staging.was_image)
        progress.stage(f"ingest {source}", len(files), "files")
        scan(
            files,
            staging,
            _images(workspace, again),
            settings,
            lambda rejected: progress.advance(f"ingest {source}", rejects=int(rejected)),
        )
        if not staging.claims and pick is None:  # of a few picked ones all may be broken
            raise _none_usable(source, chosen, files, staging)
        passed_by = _passed_by(files, staging)
        shards = registry.register(
            chosen.location,
            staging,
            settings.shard_images,
            _listing_settings(chosen),
            files.versions(),
            passed_by,
        )
        denied = registry.denied()
        taken = staging.among(denied)
        for _, image in taken:  # taken down while it was scanned, or left by a scan that was killed
            workspace.store.delete(keys.blob(image))
        return IngestReceipt(
            source=source,
            files=len(files),
            images=staging.claims - len(taken),
            new_images=staging.images,
            new_shards=len(shards),
            rejects=list(staging.file_rejects(denied)),
            left_out=passed_by,
            unusual=_unusual(staging) if chosen.by_content and not files.declared else {},
        )


def _passed_by(files: Listing, staging: ScanStaging) -> dict[str, int]:
    further = sum(each.pages - 1 for each in staging.pages())
    return {**files.left_out, **({left_out.PAGE: further} if further else {})}


def _images(workspace: Workspace, again: bool) -> Images:
    registry, store = workspace.registry, workspace.store
    known, shards = registry.known(), {shard.id: shard for shard in registry.shards()}

    def keep(image: Image, raw: bytes) -> bytes | None:
        """Store an image's bytes. Returns those that are stored already, where a page was drawn otherwise before."""
        key, stored = keys.blob(image.image), raw
        if image.content is not None:
            if store.put_if_absent(key, raw):
                return None
            stored = store.get(key)
        # Written even if it is there: the new date keeps garbage collection from deleting it before it is registered.
        store.replace(key, stored)
        return None if stored == raw else stored

    @lru_cache(64)  # the pages of a document lie in several image shards
    def contents(shard: ImageShard) -> dict[ImageId, str | None]:
        return {each.image: each.content for each in registry.images(shard)}

    def make_up(image: ImageId, raw: bytes) -> None:
        shard = shards.get(known.get(image) or "")
        if again:
            drawn = sha256_hex(raw)
            if drawn == image or (shard and drawn == contents(shard).get(image)):  # no page that is drawn otherwise now
                _restore(store, keys.blob(image), raw)
        elif shard and shard.referred:
            store.replace(keys.blob(image), raw)

    return Images(known=known, denied=registry.denied(), keep=keep, make_up=make_up, again=again)


def _restore(store: Store, key: str, raw: bytes) -> None:
    """Write an image's file anew where the store has lost or damaged it."""
    try:
        if store.get(key) == raw:
            return
    except NotFoundError:
        pass
    store.replace(key, raw)


def listed(workspace: Workspace, source: str, chosen: SourceSettings) -> Listing:
    """List a source as it lies now. Raises SourceError as ``source_files``."""

    def before() -> Iterable[FileVersion]:
        return workspace.registry.last_scan(source)[0]

    return source_files(source, chosen, workspace.s3_options, workspace.settings.ingest, before)


def _unusual(staging: ScanStaging) -> dict[str, int]:
    suffixes = (suffix for file in staging.claimed_files() if (suffix := suffix_of(file)) not in USUAL_SUFFIXES)
    return left_out.folded(Counter(map(left_out.suffix_kind, suffixes)))


def _none_usable(source: str, chosen: SourceSettings, files: Listing, staging: ScanStaging) -> SourceError:
    if not len(files):
        return no_image(source, chosen, files)
    reasons = Counter(reject.reason for reject in staging.file_rejects())
    named = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    passed_by = f"\n  {told}." if (told := left_out.told(files.left_out)) else ""
    return SourceError(f"source {source!r}: none of its {len(files)} files is a usable image ({named}).{passed_by}")


# Such a file may pass when it is read again: with other settings, a decoder that was installed, on a calmer machine.
_MAY_PASS = {
    Reason.TOO_MANY_PIXELS,
    Reason.TOO_SMALL,
    Reason.ANIMATED,
    Reason.UNREADABLE,
    Reason.TOO_SLOW,
    Reason.TOO_MUCH_MEMORY,
    Reason.DECODER_CRASHES,
}


def _unchanged_receipt(
    workspace: Workspace, source: str, chosen: SourceSettings, files: Listing
) -> IngestReceipt | None:
    """The receipt of the last scan, if the listing shows that a new scan would give the same; else None."""
    registry = workspace.registry
    scan = registry.scans().get(source)
    if (
        scan is None
        or scan.files is None
        or (scan.location, scan.settings) != (chosen.location, _listing_settings(chosen))
    ):
        return None
    if rows_hash(files.versions()) != scan.files.rows_hash or not all(each.version for each in files.versions()):
        return None
    rejects = list(registry.rejects(source))
    if not _MAY_PASS.isdisjoint(reject.reason for reject in rejects):
        return None
    if left_out.listed(scan.left_out or {}) != left_out.listed(files.left_out):
        return None  # nothing is read again but what was looked into: the counts are brought up to date
    count = scan.claims.rows + scan.rejects.rows
    return IngestReceipt(
        source=source,
        files=count,
        images=count - len(rejects),
        new_images=0,
        new_shards=0,
        rejects=rejects,
        left_out=scan.left_out or {},
    )


def _listing_settings(chosen: SourceSettings) -> dict[str, Any]:
    """The settings that decide what a source lists, in the form in which a scan stores them."""
    return chosen.model_dump(mode="json", exclude={"location"}, exclude_defaults=True)


def source_settings(workspace: Workspace, source: str) -> SourceSettings:
    """A source's settings, or else those of its last scan. Raises SourceError if neither has the source."""
    if source in workspace.settings.sources:
        return workspace.settings.sources[source]
    scans = workspace.registry.scans()
    if source in scans:
        return SourceSettings(location=scans[source].location, **scans[source].settings)
    names = ", ".join(sorted({*workspace.settings.sources, *scans})) or "none"
    raise SourceError(f"source {source!r}: not in the settings (there: {names}). Add it under `sources`.")
