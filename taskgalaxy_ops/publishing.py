"""Publish a release: an immutable version under its own prefix, and ``latest`` beside it.

The releases' log holds ``{"kind": "begin", "version", "content"}`` before the first file of a version is written and
``{"kind": "done", "version", ...}`` after the last. Files follow from the content alone, so that a publisher that was
killed is continued, and two that publish the same content write the same files. A content equal to the latest
version's is not published again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taskgalaxy_ops import release
from taskgalaxy_ops.canonical import fingerprint, sha256_hex
from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.errors import DamageError, PendingError, SourceError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.harvest import Harvest
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.budget import NANO
from taskgalaxy_ops.storage.log import Log, LogEntry


@dataclass(frozen=True, slots=True)
class Published:
    """A release as its log entry tells it."""

    version: int
    content: str  # fingerprint of what it holds
    manifest_sha256: str
    samples: int
    task_types: int
    images: int
    partial: bool

    @property
    def name(self) -> str:
        return f"v{self.version:06d}"


def published(galaxy: Galaxy) -> list[Published]:
    """Every complete release, oldest first."""
    return _done(Log(galaxy.store, keys.RELEASES_LOG).read())


def _done(entries: list[LogEntry]) -> list[Published]:
    return [
        Published(**{name: value for name, value in entry.body.items() if name != "kind"})
        for entry in entries
        if entry.body["kind"] == "done"
    ]


@dataclass(frozen=True, slots=True)
class ReleaseReceipt:
    """What publishing came to."""

    release: Published
    path: str  # URL of its prefix
    made: bool  # False: it is equal to the latest, which stands
    funnel: StageCounts  # accepted pairs to samples of the release


def publish(
    galaxy: Galaxy, *, partial: bool = False, harvest: Harvest | None = None, progress: Progress | None = None
) -> ReleaseReceipt:
    """Release all accepted pairs of live images.

    Raises PendingError while anything is pending, unless ``partial``; SourceError where there is nothing to release.
    """
    progress = progress or Silent()
    harvest = harvest or Harvest(galaxy)
    if harvest.pending and not partial:
        raise PendingError(
            f"release: {harvest.pending} units have no answer yet. Run `taskgalaxy generate` to the end, or release "
            "what is there with --partial: the release then says so."
        )
    plan = release.plan(material(harvest), galaxy.settings.release)
    if not plan.samples:
        raise SourceError(
            "release: no pair has been accepted, so there is nothing to release. See `taskgalaxy status`."
        )
    for _ in range(2):
        version = _begin(galaxy, plan.content_hash)
        if isinstance(version, Published):
            return ReleaseReceipt(version, url(galaxy, version), False, plan.funnel[-1])
        history = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings_version": galaxy.publish_settings()[0],
        }
        progress.stage("release", plan.files, "files")
        files = release.build(plan, version=version, history=history)
        if (manifest := _write(galaxy, version, files, progress)) is not None:
            break
        # Another version of a library writes other bytes for the same rows: what it began is left, a new one begun.
        Log(galaxy.store, keys.RELEASES_LOG).append({"kind": "abandon", "version": version})
    else:
        raise DamageError(
            f"release {version}: its files keep changing while they are written. Run `taskgalaxy verify`."
        )
    done = Published(
        version,
        plan.content_hash,
        sha256_hex(manifest),
        plan.counts["samples"],
        plan.counts["task_types"],
        plan.counts["images"],
        bool(harvest.pending),
    )
    _finish(galaxy, done)
    return ReleaseReceipt(done, url(galaxy, done), True, plan.funnel[-1])


def standing(galaxy: Galaxy, harvest: Harvest, before: Sequence[Published]) -> ReleaseReceipt | None:
    """The latest release, as a receipt; ``made`` if it is none of those that were there ``before``."""
    there = published(galaxy)
    if not there:
        return None
    counts = release.plan(material(harvest), galaxy.settings.release).funnel[-1]
    return ReleaseReceipt(there[-1], url(galaxy, there[-1]), there[-1] not in before, counts)


def url(galaxy: Galaxy, one: Published) -> str:
    """Where a release lies."""
    return f"{galaxy.store.url.rstrip('/')}/{keys.release(one.version)}"


def _begin(galaxy: Galaxy, content: str) -> int | Published:
    """The version under which this content is published: one that was begun with it and not finished, or the next.

    The latest release, where it is equal: another may have published it a moment ago.
    """
    version: int | Published = 0

    def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
        nonlocal version
        done = _done(entries)
        if done and done[-1].content == content:
            version = done[-1]
            return None
        closed = {entry.body["version"] for entry in entries if entry.body["kind"] != "begin"}
        latest = max((each.version for each in done), default=0)
        begun = [entry.body for entry in entries if entry.body["kind"] == "begin"]
        for body in begun:
            # An older number would not be the latest, once done.
            if body["content"] == content and body["version"] not in closed and body["version"] > latest:
                version = body["version"]
                return None
        version = len(begun) + 1
        return {"kind": "begin", "version": version, "content": content}

    Log(galaxy.store, keys.RELEASES_LOG).append_if(decide)
    return version


def _write(galaxy: Galaxy, version: int, files: Iterator[tuple[str, bytes]], progress: Progress) -> bytes | None:
    """Write the files of a version; the manifest's bytes, or None if other bytes lie there already."""
    manifest = b""
    for path, content in files:
        if not galaxy.store.put_if_absent(keys.release(version) + path, content) and path != release.HISTORY:
            return None
        if path == release.MANIFEST:
            manifest = content
        progress.advance("release")
    return manifest


def _finish(galaxy: Galaxy, done: Published) -> None:
    body = {"kind": "done", **{name: getattr(done, name) for name in done.__slots__}}
    log = Log(galaxy.store, keys.RELEASES_LOG)
    log.append_if(lambda entries: None if done.version in {each.version for each in _done(entries)} else body)
    newest = _done(log.known())[-1]
    pointer = {"version": newest.name, "path": keys.release(newest.version), "manifest_sha256": newest.manifest_sha256}
    galaxy.store.replace(keys.LATEST, json.dumps(pointer, indent=1).encode())


def material(harvest: Harvest) -> release.Material:
    """What a release is made of, from what the store holds."""
    galaxy = harvest.galaxy
    settings = galaxy.settings
    taxonomy = Catalogue(galaxy).version()
    paid = harvest.paid.all
    levels = Counter(node.level for node in taxonomy.nodes if node.status == "live")
    return release.Material(
        samples=harvest.samples,
        votes=harvest.votes,
        verdicts=harvest.verdicts,
        images=harvest.images,
        claims=harvest.claims,
        read_image=lambda image: galaxy.store.get(keys.blob(image)),
        image_uri=lambda image: f"{galaxy.store.url.rstrip('/')}/{keys.blob(image)}",
        stage_counts=harvest.funnel,
        taxonomy=release.TaxonomySummary(taxonomy.number, [node.path for node in taxonomy.leaves()], levels),
        teacher=settings.teacher,
        judges=settings.judges,
        encoder=galaxy.encoder_identity,
        prompts={name: fingerprint("prompt", text) for name, text in galaxy.prompts.items()},
        simulated=harvest.simulated,
        partial=bool(harvest.pending),
        pending=harvest.pending,
        rules={
            "match.k": settings.match.k,
            "write.variants": list(settings.write.variants),
            "vote.quorum": settings.vote.quorum,
            "vote.show_answer": settings.vote.show_answer,
        },
        audit_share=settings.vote.audit_share,
        settings_hash=fingerprint("settings", settings.model_dump(mode="json")),
        usage={
            "calls": paid.calls,
            "tokens": paid.tokens,
            "cost": paid.cost / NANO,
            "list_cost": paid.list_cost / NANO,
        },
    )


def fetch(galaxy: Galaxy, one: Published, folder: Path) -> Path:
    """Copy a release to a local folder (below it, by version name), each file checked against the manifest.

    Files that are there already and right are left. Raises DamageError for a file that is not what the manifest says,
    and where another release lies there: its files would be loaded along.
    """
    prefix = keys.release(one.version)
    raw = galaxy.store.get(prefix + release.MANIFEST)
    if sha256_hex(raw) != one.manifest_sha256:
        raise DamageError(f"release {one.name}: its manifest was changed. Run `taskgalaxy verify`.")
    target = folder / one.name
    there = target / release.MANIFEST
    if there.is_file() and there.read_bytes() != raw:
        raise DamageError(f"{target} holds another release, of another store maybe. Name another folder, or remove it.")
    target.mkdir(parents=True, exist_ok=True)
    there.write_bytes(raw)  # first: a copy that is cut short is known for what it is
    for path, entry in json.loads(raw)["files"].items():
        local = target / path
        if local.is_file() and sha256_hex(local.read_bytes()) == entry["sha256"]:
            continue
        content = galaxy.store.get(prefix + path)
        if sha256_hex(content) != entry["sha256"]:
            raise DamageError(f"release {one.name}: {path} is not what the manifest says. Run `taskgalaxy verify`.")
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(content)
    (target / release.HISTORY).write_bytes(
        galaxy.store.get(prefix + release.HISTORY)
    )  # no content: not in the manifest
    return target
