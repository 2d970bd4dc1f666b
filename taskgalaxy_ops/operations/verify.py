"""Verify: check that the store holds what its markers, logs and manifests say. Reads everything, changes nothing.

`glance` checks only that everything exists, from logs, markers, manifests and listings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from typing import Any

from taskgalaxy_ops.errors import DamageError, NotFoundError
from taskgalaxy_ops.generation.stages import NAMES, STAGES
from taskgalaxy_ops.hashing import draw, fingerprint, sha256_hex
from taskgalaxy_ops.operations.answers import altered_pairs
from taskgalaxy_ops.operations.gc import named_by_logs
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import CopyVector, Image, ImageHash, LabelReject, Node
from taskgalaxy_ops.release import MANIFEST, copy_vectors, pdq_table
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture
from taskgalaxy_ops.release.decontaminate.questions import BenchmarkQuestion
from taskgalaxy_ops.release.publish import Published, published
from taskgalaxy_ops.sources.originals import Originals
from taskgalaxy_ops.storage import keys, parquet
from taskgalaxy_ops.storage.benchmark_log import PICTURES, QUESTIONS, BenchmarkLog
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.marker_index import marker_summaries
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import RECORD_STAGES, StageOutput, TableRef
from taskgalaxy_ops.storage.snapshot import listed
from taskgalaxy_ops.taxonomy.store import type_logs
from taskgalaxy_ops.workspace import Workspace

_RESTORE = "`taskgalaxy ingest --again` restores it, if its source still has it."
_ORIGINALS_A_SHARD = 20  # originals of an image shard that are read at their sources, others each day

_RECORDS: Mapping[tuple[str, str], type[Any]] = {
    ("ingest", "images"): Image,
    (pdq_table.STAGE, pdq_table.TABLE): ImageHash,
    (copy_vectors.STAGE, copy_vectors.TABLE): CopyVector,
    **{(stage.name, name): record for stage in STAGES for name, record in stage.tables.items()},
}


_SIDE = (pdq_table.STAGE, copy_vectors.STAGE)  # stages of side tables


@dataclass(slots=True)
class Findings:
    """The numbers of things checked, by kind, and a line for each damage."""

    checked: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    altered: int = 0  # written pairs whose text an older version altered: no damage, but not what the model wrote
    unreadable: int = 0  # written pairs that today's parser would not accept


def verify(workspace: Workspace, progress: Progress | None = None) -> Findings:
    """Check images, stage outputs, journals, logs and releases against their hashes and counts.

    Of images that are not copied, some twenty an image shard are read at their sources, others each day.
    """
    progress = progress or Silent()
    found = Findings()
    shards = workspace.registry.shards()
    progress.stage("verify", len(shards) + 1, "homes")
    stated = (_registry(workspace), _taxonomy(workspace), _benchmarks(workspace))
    for check in (_logs(workspace), *stated, _releases(workspace, _release)):
        _run(check, found)
    progress.advance("verify")
    for shard in shards:
        _run(_shard(workspace, shard, found), found)
        progress.advance("verify")
    return found


def glance(workspace: Workspace) -> Findings:
    """Check that logs can be read, and that all objects exist which logs, markers and manifests name.

    Reads no table or image.
    """
    found = Findings()
    look = workspace.snapshot()
    data = {each.key for each in listed(workspace.store, keys.DATA)}
    for check in (_logs(look), _named(look, data), _marked(look, data), _releases(look, _release_is_there)):
        _run(check, found)
    return found


_Checks = Iterator[tuple[str, Callable[[], None]]]


def _run(checks: _Checks, found: Findings) -> None:
    try:
        for kind, check in checks:
            found.checked[kind] = found.checked.get(kind, 0) + 1
            try:
                check()
            except (DamageError, NotFoundError) as error:
                found.damage.append(f"{kind}: {error}")
    except (DamageError, NotFoundError) as error:  # the log or marker that lists the things to check is damaged itself
        found.damage.append(str(error))


def _logs(workspace: Workspace) -> _Checks:
    for prefix in (
        keys.SETTINGS_LOG,
        keys.REGISTRY_LOG,
        keys.BUDGET_LOG,
        keys.VERSIONS_LOG,
        keys.RELEASES_LOG,
        keys.EDITS_LOG,
        keys.PROPOSALS_LOG,
        keys.REFUSED_LOG,
        keys.WEAKNESSES_LOG,
        keys.ANNOUNCEMENTS_LOG,
        keys.FORECASTS_LOG,
        keys.COVERAGE_LOG,
        keys.JUDGES_LOG,
        keys.REVIEWS_LOG,
        keys.BENCHMARKS_LOG,
        keys.FINETUNE_LOG,
        keys.journal(keys.TAXONOMY_SHARD),
    ):
        yield "log", lambda prefix=prefix: _read_log(workspace, prefix)  # type: ignore[misc]


def _read_log(workspace: Workspace, prefix: str) -> None:
    Log(workspace.store, prefix).read()


def _named(workspace: Workspace, data: Collection[str]) -> _Checks:
    """The tables that logs name."""
    for key in sorted(named_by_logs(workspace)):
        yield "table", lambda key=key: _is_there(key, data, "a log")  # type: ignore[misc]


def _marked(workspace: Workspace, data: Collection[str]) -> _Checks:
    """The tables that markers name. The tables of images are also in the registry, and taken from there."""
    shards = workspace.registry.shards()
    for shard in shards:
        yield "table", lambda shard=shard: _is_there(shard.images.key, data, shard.stage_output().marker)  # type: ignore[misc]
    found = (stage_output for shard in shards for stage_output in workspace.stage_outputs.committed(shard.id).values())
    stage_outputs = [stage_output for stage_output in found if stage_output.stage in {*NAMES, *_SIDE}]
    for stage_output, digest in marker_summaries(workspace.store, stage_outputs).items():
        for key in digest.data:
            yield "table", lambda key=key, stage_output=stage_output: _is_there(key, data, stage_output.marker)  # type: ignore[misc]


def _is_there(key: str, data: Collection[str], named_by: str) -> None:
    if key not in data:
        raise DamageError(f"{key} is gone, but {named_by} names it.")


def _registry(workspace: Workspace) -> _Checks:
    for ref, record in workspace.registry.tables():
        yield "table", lambda ref=ref, record=record: _table(workspace, ref, record)  # type: ignore[misc]


def _taxonomy(workspace: Workspace) -> _Checks:
    # Reads the logs directly, also if a version in them cannot be read.
    logs = (Log(workspace.store, prefix).read() for prefix in (keys.VERSIONS_LOG, keys.PROPOSALS_LOG))
    for version in chain.from_iterable(logs):
        for name, record in (("nodes", Node), ("rejects", LabelReject)):
            ref = TableRef(**version.body[name])
            yield "table", lambda ref=ref, record=record: _table(workspace, ref, record)  # type: ignore[misc]
    for prefix in type_logs(workspace):
        for entry in Log(workspace.store, prefix).read():
            ref = TableRef(**entry.body["table"])
            yield "table", lambda ref=ref: _table(workspace, ref, None)  # type: ignore[misc]


def _benchmarks(workspace: Workspace) -> _Checks:
    for benchmark in BenchmarkLog(workspace.store).read().values():
        for name, ref in benchmark.tables.items():
            record = {QUESTIONS: BenchmarkQuestion, PICTURES: BenchmarkPicture}.get(name)
            yield "table", lambda ref=ref, record=record: _table(workspace, ref, record)  # type: ignore[misc]


def _shard(workspace: Workspace, shard: ImageShard, found: Findings) -> _Checks:
    yield "journal", lambda: _read_journal(workspace, shard, found)
    for stage_output in workspace.stage_outputs.committed(shard.id).values():
        yield "shard", lambda stage_output=stage_output: _stage_output(workspace, stage_output)  # type: ignore[misc]
    originals = Originals(workspace)
    referred = {claim.image for claim in originals.references(shard.id)}
    dead = set(workspace.registry.dead(shard)) if shard.referred else set()
    for image in workspace.registry.images(shard):
        if image.image in referred:
            if _is_drawn(image, len(referred)):
                yield "original", lambda image=image: _original(originals, image, shard)  # type: ignore[misc]
        elif image.image not in dead:  # of one that is not copied, nothing is here once no source claims it
            yield "image", lambda image=image: _blob(workspace, image)  # type: ignore[misc]


def _read_journal(workspace: Workspace, shard: ImageShard, found: Findings) -> None:
    altered, unreadable = altered_pairs(workspace, shard.id)
    found.altered += altered
    found.unreadable += unreadable


def _blob(workspace: Workspace, image: Image) -> None:
    key = keys.blob(image.image)
    try:
        raw = workspace.store.get(key)
    except NotFoundError as error:
        raise DamageError(f"{key}: the image is gone. {_RESTORE}") from error
    if sha256_hex(raw) != (image.content or image.image) or len(raw) != image.size:
        raise DamageError(f"{key} is not the image that was ingested. {_RESTORE}")


def _is_drawn(image: Image, originals: int) -> bool:
    """Whether the original of an image that is not copied is read today: all of a few, a share of many."""
    return draw("verify", date.today(), image.image) < _ORIGINALS_A_SHARD / originals


def _original(originals: Originals, image: Image, shard: ImageShard) -> None:
    originals.read(image.image, shard.id)  # which checks its hash


def _stage_output(workspace: Workspace, stage_output: StageOutput) -> None:
    marker = workspace.stage_outputs.marker(stage_output)
    stats = marker["stats"]
    refs = workspace.stage_outputs.refs(stage_output)
    try:
        counted = {name: _table(workspace, ref, _RECORDS.get((stage_output.stage, name))) for name, ref in refs.items()}
    except DamageError as error:
        raise DamageError(f"{stage_output.marker}: {error}") from error
    output = fingerprint("output", {name: ref.rows_hash for name, ref in refs.items()})
    adds_up = "rejects" not in counted or (
        stats["units_in"] == stats["units_out"] + counted["rejects"]
        and counted["rejects"] == sum(stats["rejects"].values())
    )
    redacted = stage_output.stage in RECORD_STAGES and marker.get(
        "redacted"
    )  # its key was made of rows that are erased
    if not (redacted or output.startswith(stage_output.output)) or not adds_up:
        fix = "Restore it." if stage_output.stage in RECORD_STAGES else "Delete it: the stage output is computed again."
        raise DamageError(f"{stage_output.marker}: its tables or counts do not add up. {fix}")


def _table(workspace: Workspace, ref: TableRef, record: type[Any] | None) -> int:
    """The number of rows of a table. Raises DamageError unless its bytes and rows match its reference."""
    if record is None:
        ids, vectors = workspace.stage_outputs.read_embeddings(ref)
        count, digest = len(ids), parquet.embeddings_hash(ids, vectors)
    else:
        found = workspace.stage_outputs.read(ref, record)
        count, digest = len(found), parquet.rows_hash(found)
    if (count, digest) != (ref.rows, ref.rows_hash):
        raise DamageError(f"{ref.key} does not hold the rows that were written.")
    return count


def _releases(workspace: Workspace, check: Callable[[Workspace, Published, Mapping[str, Any]], None]) -> _Checks:
    for one in published(workspace):
        yield "release", lambda one=one: check(workspace, one, _manifest(workspace, one))  # type: ignore[misc]


def _manifest(workspace: Workspace, one: Published) -> Mapping[str, Any]:
    """The manifest's entries of a release's files, by path. Raises DamageError if the manifest was changed."""
    raw = workspace.store.get(keys.release(one.version) + MANIFEST)
    if sha256_hex(raw) != one.manifest_sha256:
        raise DamageError(f"{keys.release(one.version)}{MANIFEST} is not the one that was published.")
    files: Mapping[str, Any] = json.loads(raw)["files"]
    return files


def _release_is_there(workspace: Workspace, one: Published, files: Mapping[str, Any]) -> None:
    prefix = keys.release(one.version)
    there = {each.key.removeprefix(prefix): each.size for each in workspace.store.list(prefix)}
    for path, entry in files.items():
        if there.get(path) != entry["size"]:
            raise DamageError(f"{prefix}{path} is gone, or not as long as the manifest says.")


def _release(workspace: Workspace, one: Published, files: Mapping[str, Any]) -> None:
    prefix = keys.release(one.version)
    for path, entry in files.items():
        if sha256_hex(workspace.store.get(prefix + path)) != entry["sha256"]:
            raise DamageError(f"{prefix}{path} is not what the manifest says.")
