"""Push a release: a copy outside the store, on the Hugging Face hub or in another bucket or folder.

The releases' log holds ``{"kind": "push", "version", "to", "manifest_sha256", "at"}`` before the first file is sent,
and ``{"kind": "pushed", ...}`` with ``revision`` and ``alone`` after the last: ``copies`` and ``stale`` read it. So a
take-down can name every copy, also one whose push was killed. What a destination holds already is not sent again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from taskgalaxy_ops.errors import DamageError, PushError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.build import HISTORY, MANIFEST, as_json, entry
from taskgalaxy_ops.release.push.bucket import Bucket
from taskgalaxy_ops.release.push.hub import Hub
from taskgalaxy_ops.release.push.outgoing import Destination, Outgoing
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.workspace import Workspace

__all__ = ["Bucket", "Destination", "Hub", "PushReceipt", "PushedCopy", "copies", "destination", "push", "stale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedCopy:
    """What a destination holds of a release, as far as this store knows."""

    version: int
    to: str
    manifest_sha256: str  # of the release when it was sent
    at: str  # when the push began
    whole: bool  # False: it did not end, and some of the files are there

    @property
    def release(self) -> str:
        return f"v{self.version:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReceipt:
    """The outcome of a push."""

    release: str  # its name
    to: str
    files: int
    sent: int  # of them; the others were there
    revision: str  # the hub's commit; "": the destination has no revisions


def destination(
    workspace: Workspace, one: publish.Published, where: str, *, public: bool = False, endpoint: str | None = None
) -> Destination:
    """Where a text says that a release is to go: ``hf://OWNER/NAME``, ``s3://bucket/prefix`` or ``file:///folder``.

    endpoint: of the bucket's service; None: that of the settings. Raises PushError, StoreError.
    """
    if where.startswith("hf://"):
        return Hub(where.removeprefix("hf://").removeprefix("datasets/").strip("/"), public=public)
    if "://" not in where:
        raise PushError(
            f"push: {where!r} is no destination. Write hf://OWNER/NAME, s3://bucket/prefix or file:///path."
        )
    bucket = Bucket.at(where, one.name, **workspace.s3_options | ({"endpoint_url": endpoint} if endpoint else {}))
    if f"{bucket.to}/".startswith(f"{workspace.store.url.rstrip('/')}/"):
        raise PushError(f"push: {bucket.to} lies in the store itself. Name another bucket, prefix or folder.")
    return bucket


def push(
    workspace: Workspace,
    one: publish.Published,
    to: Destination,
    *,
    images: bool = True,
    progress: Progress | None = None,
) -> PushReceipt:
    """Make a destination hold a release as it is now, and nothing else of this store.

    images: False leaves out the folder ``images``: the rows of Parquet hold them too. A take-down is finished on the
    release first, and where one comes in between, what it withdrew is taken out of the copy again. Call it again after
    an interruption. Raises PushError where the destination refuses, DamageError for a file that is not the manifest's.
    """
    progress = progress or Silent()
    log = Log(workspace.store, keys.RELEASES_LOG)
    sent = 0
    while True:
        denied = workspace.registry.denied()
        if denied:
            publish.withdraw(workspace, one.version, denied)
        outgoing = _outgoing(workspace, one.version, to.to, images)
        begun = {"version": one.version, "to": to.to, "manifest_sha256": outgoing.release_sha256}
        log.append({"kind": "push", **begun, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        done = to.send(outgoing, progress)
        sent += done.sent
        if workspace.registry.denied() == denied:
            break
    log.append({"kind": "pushed", **begun, "revision": done.revision, "alone": done.alone})
    return PushReceipt(release=one.name, to=to.to, files=len(outgoing.files), sent=sent, revision=done.revision)


def _outgoing(workspace: Workspace, version: int, to: str, images: bool) -> Outgoing:
    prefix = keys.release(version)
    raw = workspace.store.get(prefix + MANIFEST)
    entries = Log(workspace.store, keys.RELEASES_LOG).read()
    name, known = f"v{version:06d}", _shas(entries)
    if sha256_hex(raw) != known.get(version):
        raise DamageError(f"release {name}: its manifest was changed. Run `taskgalaxy verify`.")
    before = _copies(entries).get(to, [])
    manifest = raw if images else _without_images(raw)
    history = workspace.store.get(prefix + HISTORY)
    return Outgoing(
        name=name,
        files=json.loads(manifest)["files"] | {HISTORY: entry(history), MANIFEST: entry(manifest)},
        made={HISTORY: history, MANIFEST: manifest},
        release_sha256=known[version],
        read=lambda path, start, length: workspace.store.get(prefix + path, start=start, length=length),
        ours=bool(before),
        superseded=any(each.manifest_sha256 != known.get(each.version) for each in before),
    )


def _without_images(manifest: bytes) -> bytes:
    listed = json.loads(manifest)
    listed["files"] = {path: found for path, found in listed["files"].items() if not path.startswith("images/")}
    return as_json(listed)


def copies(workspace: Workspace) -> list[PushedCopy]:
    """Every copy that a push left outside the store, in order of destination, then oldest first."""
    found = _copies(Log(workspace.store, keys.RELEASES_LOG).read())
    return [each for to in sorted(found) for each in found[to]]


def stale(workspace: Workspace) -> list[PushedCopy]:
    """The copies from whose release something was withdrawn since: they hold it until the release is pushed again."""
    entries = Log(workspace.store, keys.RELEASES_LOG).read()
    found, known = _copies(entries), _shas(entries)
    return [each for to in sorted(found) for each in found[to] if each.manifest_sha256 != known.get(each.version)]


def _shas(entries: list[LogEntry]) -> Mapping[int, str]:
    """The SHA-256 of each release's manifest, as it is now."""
    done = {"done", "withdraw"}
    return {each.body["version"]: each.body["manifest_sha256"] for each in entries if each.body["kind"] in done}


def _copies(entries: list[LogEntry]) -> dict[str, list[PushedCopy]]:
    held: dict[str, list[PushedCopy]] = defaultdict(list)
    for body in (each.body for each in entries):
        if body["kind"] == "push":
            copy = PushedCopy(**{name: value for name, value in body.items() if name != "kind"}, whole=False)
            same = (copy.version, copy.manifest_sha256)
            if same not in {(each.version, each.manifest_sha256) for each in held[copy.to]}:
                held[copy.to].append(copy)
        elif body["kind"] == "pushed":
            same = (body["version"], body["manifest_sha256"])
            kept = [
                PushedCopy(**{**asdict(each), "whole": True}) if (each.version, each.manifest_sha256) == same else each
                for each in held[body["to"]]
            ]
            held[body["to"]] = [
                each for each in kept if not body["alone"] or (each.version, each.manifest_sha256) == same
            ]
    return held
