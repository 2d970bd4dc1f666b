"""Publish a release: an immutable version under its own prefix, and ``latest`` beside it.

The releases' log holds ``{"kind": "begin", "version", "content"}`` before the first file of a version is written and
``{"kind": "done", "version", ...}`` after the last. The content alone determines the files: if a publisher is killed,
the next one continues its version, and two that publish the same content write the same files. Content equal to the
latest version's is not published again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import DamageError, NotFoundError, PendingError, SourceError, TaskGalaxyError
from taskgalaxy_ops.extensions import QUESTION_FORMS, RELEASE_FORMATS
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Image, ImageId
from taskgalaxy_ops.release import decontaminate, published_rows
from taskgalaxy_ops.release.changes import ReleaseChanges, compared, made_of
from taskgalaxy_ops.release.copying import copy_listed, manifest_of
from taskgalaxy_ops.release.decontaminate.stored import benchmark_inputs
from taskgalaxy_ops.release.looks import looks_for, question_encoder
from taskgalaxy_ops.release.releases_log import BEFORE_RENDITIONS, complete
from taskgalaxy_ops.release.releases_log import Published as Published
from taskgalaxy_ops.release.releases_log import published as published
from taskgalaxy_ops.release.renditions import Renditions
from taskgalaxy_ops.release.reviewed import Reviewed
from taskgalaxy_ops.release.rules import data_rules, log_rules, recorded
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.sources.originals import originals, read_image
from taskgalaxy_ops.storage import Listed, keys
from taskgalaxy_ops.storage.base import Content
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReceipt:
    """The outcome of publishing."""

    release: Published
    path: str  # URL of its prefix
    made: bool  # False: nothing was made, because the content equals that of the latest release
    funnel: StageCounts  # from accepted pairs to samples
    older: bool = False  # an earlier version made it of the same: it lacks what this version adds
    changes: ReleaseChanges | None = None  # against the latest before; None: it is the first, or was not made now


def publish(
    workspace: Workspace,
    *,
    partial: bool = False,
    renew: bool = False,
    results: RunResults | None = None,
    progress: Progress | None = None,
) -> ReleaseReceipt:
    """Release all accepted pairs of live images, unless this equals the latest release.

    renew: also where nothing but the version of TaskGalaxy differs that made the latest release. results: of a run that
    was just made; None: of the answers that the journals hold.
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
        return _unmade(workspace, latest)
    if latest and not renew and _made_before(results, latest):
        return replace(_unmade(workspace, latest), older=True)
    with release.select_samples(release_inputs(results, progress=progress), workspace.settings.release) as plan:
        if not plan.counts["samples"]:
            raise SourceError(
                "release: no pair has been accepted, so there is nothing to release. See `taskgalaxy status`."
            )
        if latest and not renew and _same_by_another_version(plan, latest):
            return replace(_unmade(workspace, latest), older=True)
        changes = _changes(results, plan, latest)
        made = _make(workspace, plan, progress, changes)
        if isinstance(made, Published):
            return replace(_unmade(workspace, made), funnel=plan.funnel[-1])
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
            code=release.RELEASE_VERSION,
        )
        published_rows.keep_left_out(workspace.store, version, plan.rejects())
        published_rows.keep_made_of(workspace.store, version, made_of(results))
    _finish(workspace, done)
    if late := workspace.registry.denied() - results.denied:  # taken down while it was made
        withdraw(workspace, version, late)
        for listed in [each for image in late for each in workspace.store.list(keys.renderings(image))]:
            workspace.store.delete(listed.key)
        done = next(one for one in published(workspace) if one.version == version)
    return ReleaseReceipt(release=done, path=url(workspace, done), made=True, funnel=done.funnel, changes=changes)


def _unmade(workspace: Workspace, one: Published) -> ReleaseReceipt:
    """The receipt where an equal release is there already."""
    return ReleaseReceipt(release=one, path=url(workspace, one), made=False, funnel=one.funnel)


def _changes(results: RunResults, plan: release.Selection, latest: Published | None) -> ReleaseChanges | None:
    """What a selection gains and loses against the latest release; None: there is none, it is equal, or is damaged."""
    if latest is None or latest.content == plan.content_hash:
        return None
    try:
        return compared(plan, results, latest)
    except (TaskGalaxyError, sqlite3.Error):  # `taskgalaxy verify` tells of damage; the release does not depend on it
        return None


def _made_before(results: RunResults, latest: Published) -> bool:
    """Whether an earlier version of TaskGalaxy made the latest release, of the same samples.

    Of a version that released pictures, only by its inputs: ``_same_by_another_version`` compares the content.
    """
    rules = results.workspace.settings.release
    if latest.code == release.RELEASE_VERSION:
        return False
    if latest.code == BEFORE_RENDITIONS and rules.images != "rendition":
        return False
    if latest.inputs and latest.inputs == _inputs(results, code=latest.code):
        return True
    if latest.code > BEFORE_RENDITIONS:
        return False
    files = rules.model_copy(update={"images": "original"})
    with release.select_samples(release_inputs(results, files), files) as plan:
        return plan.content_by(latest.code) == latest.content


def _same_by_another_version(plan: release.Selection, latest: Published) -> bool:
    """Whether an earlier version that already released pictures made the latest release of this selection."""
    earlier = BEFORE_RENDITIONS < latest.code < release.RELEASE_VERSION
    return earlier and plan.content_by(latest.code) == latest.content


def _inputs(results: RunResults, code: int = release.RELEASE_VERSION) -> str:
    """Fingerprint of all that determines a release's content, made without reading rows; "" if a part is provisional.

    Equal fingerprints mean equal content; equal content may have different fingerprints.
    """
    parts = [
        (shard.id, stage, part.stage_output) for shard in results.result.shards for stage, part in shard.stages.items()
    ]
    outputs = [[shard, stage, made.output] for shard, stage, made in parts if made]
    if results.pending or len(outputs) < len(parts):
        return ""
    workspace = results.workspace
    read = {"teacher", "judges", "match", "filter", "write", "vote", "targets", "release"}
    return fingerprint(
        "release.inputs",
        {
            "code": code,
            "shards": sorted(outputs),
            "registry": workspace.registry.last(),
            "taxonomy": TaxonomyStore(workspace).version().number,
            # How the teacher is asked changes no sample, nor where weights lie.
            "settings": workspace.settings.model_dump(
                mode="json", include=read, exclude={"write": {"fused"}, "release": {"decontaminate": {"sscd"}}}
            ),
            "encoder": workspace.type_encoder_identity,
            "prompts": dict(workspace.prompts),
            "simulated": results.simulated,
            "release_formats": RELEASE_FORMATS.versions(workspace.settings.release.formats),
            "question_forms": QUESTION_FORMS.versions(workspace.settings.write.variants),
            "store": workspace.store.url,
            **log_rules(workspace),
            # Only here: where a later rule finds the same, it is the same release.
            **({"found_by": decontaminate.RULE} if workspace.settings.release.decontaminate is not None else {}),
        },
    )


def _make(
    workspace: Workspace, plan: release.Selection, progress: Progress, changes: ReleaseChanges | None
) -> tuple[int, str] | Published:
    """Write a selection's files as a new version, or continue one that was begun with the same content.

    changes: for ``history.json``, since the other files follow from the content alone. Returns the version and the
    SHA-256 of its manifest; or the latest release, if its content is equal.
    """
    for _ in range(2):
        version = _begin(workspace, plan.content_hash)
        if isinstance(version, Published):
            return version
        history = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings_version": workspace.publish_settings()[0],
            **({"changes": changes.to_json()} if changes else {}),
        }
        progress.stage("release", release.file_count(plan), "files")
        files = release.build(plan, version=version, history=history)
        if manifest := _write(workspace, version, files, progress):
            return version, manifest
        # The files of the version that was begun have other bytes, because another version of a library wrote them:
        # abandon that version, and begin a new one.
        Log(workspace.store, keys.RELEASES_LOG).append({"kind": "abandon", "version": version})
    raise DamageError(f"release {version}: its files keep changing while they are written. Run `taskgalaxy verify`.")


def latest_release(workspace: Workspace, before: Sequence[Published]) -> ReleaseReceipt | None:
    """The latest release as a receipt, with ``made`` if it is not among those ``before``; None: there is none."""
    releases = published(workspace)
    if not releases:
        return None
    return replace(_unmade(workspace, releases[-1]), made=releases[-1] not in before)


def url(workspace: Workspace, one: Published) -> str:
    """The URL of a release's prefix."""
    return f"{workspace.store.url.rstrip('/')}/{keys.release(one.version)}"


def _begin(workspace: Workspace, content: str) -> int | Published:
    """The version under which to publish this content: an unfinished one that was begun with it, or the next.

    Returns the latest release instead if its content is equal: another process may have just published it.
    """
    version: int | Published = 0

    def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
        nonlocal version
        done = complete(entries)
        if done and done[-1].content == content:
            version = done[-1]
            return None
        closed = {entry.body["version"] for entry in entries if entry.body["kind"] != "begin"}
        latest = max((each.version for each in done), default=0)
        begun = [entry.body for entry in entries if entry.body["kind"] == "begin"]
        for body in begun:
            # A version below the latest is not continued: once finished, it would not be the latest release.
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
    """Write the files of a version. Returns the manifest's SHA-256, or "" if a file exists with other bytes."""
    manifest = ""
    for path, content in files:
        key = keys.release(version) + path
        if isinstance(content, release.Stored):
            originals(workspace).keep_copy(content.image)
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
    log.append_if(lambda entries: None if done.version in {each.version for each in complete(entries)} else body)
    _point_to_latest(workspace, log)


def _point_to_latest(workspace: Workspace, log: Log) -> None:
    newest = complete(log.known())[-1]
    pointer = {"version": newest.name, "path": keys.release(newest.version), "manifest_sha256": newest.manifest_sha256}
    workspace.store.replace(keys.LATEST, json.dumps(pointer, indent=1).encode())


def withdraw(workspace: Workspace, version: int, gone: Collection[ImageId]) -> dict[str, int]:
    """Withdraw images from a release's files. Returns its withdrawn samples by its name; {}: it holds none of them."""
    prefix = keys.release(version)
    try:
        manifest = workspace.store.get(prefix + release.MANIFEST)
    except NotFoundError:  # the release was never finished
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
    known = {each.version: each.manifest_sha256 for each in complete(log.read())}
    sha256 = sha256_hex(manifest)
    if known.get(version, sha256) == sha256:  # they differ also if an earlier call was killed before the entry below
        return {}
    samples = json.loads(manifest)["withdrawn"]["samples"]
    log.append({"kind": "withdraw", "version": version, "withdrawn": samples, "manifest_sha256": sha256})
    _point_to_latest(workspace, log)
    return {f"v{version:06d}": samples}


def unfinished(workspace: Workspace) -> list[Listed]:
    """The files of releases that were abandoned, or that were begun and not finished before a later one."""
    entries = Log(workspace.store, keys.RELEASES_LOG).read()
    done = {each.version for each in complete(entries)}
    given_up = {entry.body["version"] for entry in entries if entry.body["kind"] == "abandon"}
    begun = {entry.body["version"] for entry in entries if entry.body["kind"] == "begin"}
    dead = given_up | {version for version in begun if version < max(done, default=0)} - done
    return [listed for version in sorted(dead) for listed in workspace.store.list(keys.release(version))]


def _rows(results: RunResults, taxonomy: TaxonomyVersion) -> Iterator[release.ShardRows]:
    """The rows of each image shard for a release, with the task types' present paths."""
    workspace, reviewed = results.workspace, Reviewed(results)
    preferences = "preference" in workspace.settings.release.formats
    for result, shard in results.shards():
        yield release.ShardRows(
            samples=results.shown_samples(result, taxonomy),
            votes=results.columns(result, "vote", "votes"),
            verdicts=results.columns(result, "vote", "verdicts"),
            images=workspace.stage_outputs.columns(shard.images, Image),
            claims=workspace.registry.claims_of(shard.id),
            corrections=reviewed.corrections(result, taxonomy),
            found_wrong=reviewed.found_wrong,
            voted_down=results.shown_pairs(result, taxonomy) if preferences else None,
        )


def release_inputs(
    results: RunResults, rules: ReleaseSettings | None = None, progress: Progress | None = None
) -> release.ReleaseInputs:
    """The inputs of a release, from a run's results and the store. rules: None: those of the settings.

    progress: of the comparison of pictures, which decodes each image once.
    """
    workspace = results.workspace
    settings = workspace.settings
    rules = rules or settings.release
    taxonomy = TaxonomyStore(workspace).version()
    paid = results.paid.all
    renditions = Renditions(workspace)
    released = keys.blob if rules.images == "original" else renditions.key
    levels = Counter(node.level for node in taxonomy.nodes if node.status == "live")
    return release.ReleaseInputs(
        shards=_rows(results, taxonomy),
        read_image=lambda image: read_image(workspace, image),
        image_uri=lambda image: f"{workspace.store.url.rstrip('/')}/{released(image)}",
        rendition=renditions.of,
        refer=originals(workspace).keep_copy if rules.images == "original" else renditions.refer,
        stage_counts=results.funnel,
        taxonomy=release.TaxonomySummary(taxonomy.number, [node.path for node in taxonomy.leaves()], levels),
        teacher=settings.teacher,
        judges=settings.judges,
        encoder=workspace.type_encoder_identity,
        prompts={name: fingerprint("prompt", text) for name, text in workspace.prompts.items()},
        simulated=results.simulated,
        partial=bool(results.pending),
        pending=results.pending,
        rules=data_rules(workspace),
        measure=recorded(workspace),
        benchmarks=benchmark_inputs(workspace, progress),
        looks=looks_for(workspace, progress),
        encode_questions=question_encoder(workspace),
        targets=results.targets.types if results.targets else None,
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
    """Copy a release to ``folder``/<version's name>, and check each file against the manifest; returns that folder.

    Files that are already there and correct are not copied again. Raises DamageError for a file that differs from the
    manifest, and if the folder holds another release, whose files would be loaded together with these.
    """
    raw = manifest_of(workspace.store, one)
    target = folder / one.name
    local_manifest = target / release.MANIFEST
    if local_manifest.is_file() and local_manifest.read_bytes() != raw:
        raise DamageError(f"{target} holds another release, of another store maybe. Name another folder, or remove it.")
    target.mkdir(parents=True, exist_ok=True)
    local_manifest.write_bytes(raw)  # first, so that an interrupted copy can be told from another release
    for path, entry in json.loads(raw)["files"].items():
        copy_listed(workspace.store, one, path, entry, target)
    # The history is not in the manifest, because it is no content.
    (target / release.HISTORY).write_bytes(workspace.store.get(keys.release(one.version) + release.HISTORY))
    return target
