"""Publish a release: an immutable version under its own prefix, and ``latest`` beside it.

The releases' log holds ``{"kind": "begin", "version", "content"}`` before the first file of a version is written and
``{"kind": "done", "version", ...}`` after the last. Files follow from the content alone, so that a publisher that was
killed is continued, and two that publish the same content write the same files. A content equal to the latest
version's is not published again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import DamageError, NotFoundError, PendingError, SourceError
from taskgalaxy_ops.extensions import QUESTION_FORMS, RELEASE_FORMATS
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Image, ImageId
from taskgalaxy_ops.release import published_rows
from taskgalaxy_ops.storage import Listed, keys
from taskgalaxy_ops.storage.base import Content, in_parts
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A release as its log entry tells it."""

    version: int
    content: str  # fingerprint of what it holds
    manifest_sha256: str
    samples: int
    task_types: int
    images: int
    partial: bool
    inputs: str = ""  # fingerprint of what it was made from, where all of that was whole; "" where it is not known
    rejects: Mapping[str, int] = field(default_factory=dict)  # accepted pairs that were left out, by reason
    withdrawn: int = 0  # samples that were taken out of it since, with their images

    @property
    def funnel(self) -> StageCounts:
        """Accepted pairs to samples of the release."""
        left_out = sum(self.rejects.values())
        return StageCounts("release", self.samples + left_out, self.samples, self.rejects)

    @property
    def name(self) -> str:
        return f"v{self.version:06d}"


def published(workspace: Workspace) -> list[Published]:
    """Every complete release, oldest first."""
    return _done(Log(workspace.store, keys.RELEASES_LOG).read())


def _done(entries: list[LogEntry]) -> list[Published]:
    found: dict[int, Published] = {}
    for entry in entries:
        body = {name: value for name, value in entry.body.items() if name != "kind"}
        if entry.body["kind"] == "done":
            found.setdefault(body["version"], Published(**body))
        elif entry.body["kind"] == "withdraw" and body["version"] in found:
            found[body["version"]] = replace(found[body["version"]], **body)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class ReleaseReceipt:
    """What publishing came to."""

    release: Published
    path: str  # URL of its prefix
    made: bool  # False: it is equal to the latest, which stands
    funnel: StageCounts  # accepted pairs to samples of the release


def publish(
    workspace: Workspace, *, partial: bool = False, results: RunResults | None = None, progress: Progress | None = None
) -> ReleaseReceipt:
    """Release all accepted pairs of live images.

    Raises PendingError while anything is pending, unless ``partial``; SourceError where there is nothing to release.
    """
    progress = progress or Silent()
    results = results or RunResults(workspace)
    if results.pending and not partial:
        raise PendingError(
            f"release: {results.pending} units have no answer yet. Run `taskgalaxy generate` to the end, or release "
            "what is there with --partial: the release then says so."
        )
    inputs = _inputs(results)
    latest = next(reversed(published(workspace)), None)
    if latest and inputs and latest.inputs == inputs:
        return ReleaseReceipt(latest, url(workspace, latest), False, latest.funnel)
    with release.select_samples(release_inputs(results), workspace.settings.release) as plan:
        if not plan.counts["samples"]:
            raise SourceError(
                "release: no pair has been accepted, so there is nothing to release. See `taskgalaxy status`."
            )
        made = _make(workspace, plan, progress)
        if isinstance(made, Published):
            return ReleaseReceipt(made, url(workspace, made), False, plan.funnel[-1])
        version, manifest = made
        done = Published(
            version=version,
            content=plan.content_hash,
            manifest_sha256=manifest,
            samples=plan.counts["samples"],
            task_types=plan.counts["task_types"],
            images=plan.counts["images"],
            partial=bool(results.pending),
            inputs=inputs,
            rejects=dict(plan.funnel[-1].rejects),
        )
        published_rows.keep_left_out(workspace.store, version, plan.rejects())
    _finish(workspace, done)
    if late := workspace.registry.denied() - results.denied:  # taken down while it was made
        withdraw(workspace, version, late)
        done = next(one for one in published(workspace) if one.version == version)
    return ReleaseReceipt(done, url(workspace, done), True, done.funnel)


def _inputs(results: RunResults) -> str:
    """Fingerprint of all that a release's content follows from, for which no row is read; "" if a part is provisional.

    What is equal by it has equal content; the reverse need not be.
    """
    parts = [
        (shard.id, stage, part.stage_output) for shard in results.result.shards for stage, part in shard.stages.items()
    ]
    outputs = [[shard, stage, made.output] for shard, stage, made in parts if made]
    if results.pending or len(outputs) < len(parts):
        return ""
    workspace = results.workspace
    read = {"teacher", "judges", "match", "write", "vote", "release"}
    return fingerprint(
        "release.inputs",
        {
            "code": release.RELEASE_VERSION,
            "shards": sorted(outputs),
            "registry": workspace.registry.last(),
            "taxonomy": TaxonomyStore(workspace).version().number,
            "settings": workspace.settings.model_dump(mode="json", include=read),
            "encoder": workspace.encoder_identity,
            "prompts": dict(workspace.prompts),
            "simulated": results.simulated,
            "release_formats": RELEASE_FORMATS.versions(workspace.settings.release.formats),
            "question_forms": QUESTION_FORMS.versions(workspace.settings.write.variants),
            "store": workspace.store.url,
        },
    )


def _make(workspace: Workspace, plan: release.Selection, progress: Progress) -> tuple[int, str] | Published:
    """Write a plan's files as a new version, or go on with one that was begun; version and SHA-256 of its manifest.

    The latest release, where that is equal.
    """
    for _ in range(2):
        version = _begin(workspace, plan.content_hash)
        if isinstance(version, Published):
            return version
        history = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings_version": workspace.publish_settings()[0],
        }
        progress.stage("release", release.file_count(plan), "files")
        files = release.build(plan, version=version, history=history)
        if manifest := _write(workspace, version, files, progress):
            return version, manifest
        # Another version of a library writes other bytes for the same rows: what it began is left, a new one begun.
        Log(workspace.store, keys.RELEASES_LOG).append({"kind": "abandon", "version": version})
    raise DamageError(f"release {version}: its files keep changing while they are written. Run `taskgalaxy verify`.")


def latest_release(workspace: Workspace, before: Sequence[Published]) -> ReleaseReceipt | None:
    """The latest release, as a receipt; ``made`` if it is none of those that were there ``before``."""
    there = published(workspace)
    if not there:
        return None
    return ReleaseReceipt(there[-1], url(workspace, there[-1]), there[-1] not in before, there[-1].funnel)


def url(workspace: Workspace, one: Published) -> str:
    """Where a release lies."""
    return f"{workspace.store.url.rstrip('/')}/{keys.release(one.version)}"


def _begin(workspace: Workspace, content: str) -> int | Published:
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

    Log(workspace.store, keys.RELEASES_LOG).append_if(decide)
    return version


def _write(
    workspace: Workspace, version: int, files: Iterator[tuple[str, Content | release.Stored]], progress: Progress
) -> str:
    """Write the files of a version; the manifest's SHA-256, or "" if other bytes lie there already."""
    manifest = ""
    for path, content in files:
        key = keys.release(version) + path
        if isinstance(content, release.Stored):
            workspace.store.copy(keys.blob(content.image), key)
        elif not workspace.store.put_if_absent(key, content) and path != release.HISTORY:
            return ""
        elif path == release.MANIFEST:
            manifest = release.entry(content)["sha256"]
        progress.advance("release")
    return manifest


def _finish(workspace: Workspace, done: Published) -> None:
    body = {"kind": "done", **{name: getattr(done, name) for name in done.__slots__}}
    log = Log(workspace.store, keys.RELEASES_LOG)
    log.append_if(lambda entries: None if done.version in {each.version for each in _done(entries)} else body)
    _point_to_latest(workspace, log)


def _point_to_latest(workspace: Workspace, log: Log) -> None:
    newest = _done(log.known())[-1]
    pointer = {"version": newest.name, "path": keys.release(newest.version), "manifest_sha256": newest.manifest_sha256}
    workspace.store.replace(keys.LATEST, json.dumps(pointer, indent=1).encode())


def withdraw(workspace: Workspace, version: int, gone: Collection[ImageId]) -> dict[str, int]:
    """Take images out of a release's files; its name and how many samples are out of it, or nothing: it has none."""
    prefix = keys.release(version)
    try:
        manifest = workspace.store.get(prefix + release.MANIFEST)
    except NotFoundError:  # it was never finished
        for listed in list(workspace.store.list(prefix)):
            workspace.store.delete(listed.key)
        return {}
    for path, content in release.withdraw(manifest, lambda path: workspace.store.get(prefix + path), gone):
        if content is None:
            workspace.store.delete(prefix + path)
        else:
            workspace.store.replace(prefix + path, content)
            manifest = content if path == release.MANIFEST else manifest
    log = Log(workspace.store, keys.RELEASES_LOG)
    known = {each.version: each.manifest_sha256 for each in _done(log.read())}
    sha256 = sha256_hex(manifest)
    if known.get(version, sha256) == sha256:  # where a kill came before this entry, it is not
        return {}
    samples = json.loads(manifest)["withdrawn"]["samples"]
    log.append({"kind": "withdraw", "version": version, "withdrawn": samples, "manifest_sha256": sha256})
    _point_to_latest(workspace, log)
    return {f"v{version:06d}": samples}


def unfinished(workspace: Workspace) -> list[Listed]:
    """The files of releases that were given up, or were begun and then overtaken by a later one."""
    entries = Log(workspace.store, keys.RELEASES_LOG).read()
    done = {each.version for each in _done(entries)}
    given_up = {entry.body["version"] for entry in entries if entry.body["kind"] == "abandon"}
    begun = {entry.body["version"] for entry in entries if entry.body["kind"] == "begin"}
    dead = given_up | {version for version in begun if version < max(done, default=0)} - done
    return [listed for version in sorted(dead) for listed in workspace.store.list(keys.release(version))]


def _rows(results: RunResults) -> Iterator[release.ShardRows]:
    """What each image shard gives to a release."""
    workspace = results.workspace
    for found, shard in results.shards():
        yield release.ShardRows(
            samples=results.columns(found, "vote", "samples"),
            votes=results.columns(found, "vote", "votes"),
            verdicts=results.columns(found, "vote", "verdicts"),
            images=workspace.stage_outputs.columns(shard.images, Image),
            claims=workspace.registry.claims_of(shard.id),
        )


def release_inputs(results: RunResults) -> release.ReleaseInputs:
    """What a release is made of, from what the store holds."""
    workspace = results.workspace
    settings = workspace.settings
    taxonomy = TaxonomyStore(workspace).version()
    paid = results.paid.all
    levels = Counter(node.level for node in taxonomy.nodes if node.status == "live")
    return release.ReleaseInputs(
        shards=_rows(results),
        read_image=lambda image: workspace.store.get(keys.blob(image)),
        image_uri=lambda image: f"{workspace.store.url.rstrip('/')}/{keys.blob(image)}",
        stage_counts=results.funnel,
        taxonomy=release.TaxonomySummary(taxonomy.number, [node.path for node in taxonomy.leaves()], levels),
        teacher=settings.teacher,
        judges=settings.judges,
        encoder=workspace.encoder_identity,
        prompts={name: fingerprint("prompt", text) for name, text in workspace.prompts.items()},
        simulated=results.simulated,
        partial=bool(results.pending),
        pending=results.pending,
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


def fetch(workspace: Workspace, one: Published, folder: Path) -> Path:
    """Copy a release to a local folder (below it, by version name), each file checked against the manifest.

    Files that are there already and right are left. Raises DamageError for a file that is not what the manifest says,
    and where another release lies there: its files would be loaded along.
    """
    prefix = keys.release(one.version)
    raw = workspace.store.get(prefix + release.MANIFEST)
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
        if local.is_file() and _sha256(local) == entry["sha256"]:
            continue
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.open("wb") as file:
            for part in in_parts(workspace.store, prefix + path):
                file.write(part)
        if _sha256(local) != entry["sha256"]:
            local.unlink()
            raise DamageError(f"release {one.name}: {path} is not what the manifest says. Run `taskgalaxy verify`.")
    (target / release.HISTORY).write_bytes(
        workspace.store.get(prefix + release.HISTORY)
    )  # no content: not in the manifest
    return target


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
