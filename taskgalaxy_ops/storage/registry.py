"""The registry: a log of scans and removals of sources. It decides which home an image has.

An entry is ``{"kind": "scan", "source", "location", "settings", "files", "claims", "rejects", "homes"}``, whose tables
are content-named Parquet, or ``{"kind": "remove", "source"}``. A scan replaces its source's claims. ``homes`` are the
image shards that this scan cut: an image lives in the home where it was first registered, for good.

``{"kind": "takedown", "images", "homes", "reason", "at"}`` denies images: from then on nobody claims them, and files
that hold them are rejects. ``homes`` are those that held them, with their ids: a home remembers what was taken down in
it, also once its tables hold it no more. ``{"kind": "redact", "keys"}`` names tables that were written again without.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from taskgalaxy_ops.canonical import fingerprint
from taskgalaxy_ops.records import Claim, FileReject, FileVersion, Image, ImageId, Reason
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.storage.shards import Shard, Shards, Stats, Table, TableRef, table

INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class Scan:
    """A source as its last scan found it."""

    source: str
    location: str
    claims: TableRef
    rejects: TableRef
    settings: Mapping[str, Any] = field(default_factory=dict)  # how it was looked for: suffixes, limit, licence …
    files: TableRef | None = None  # the listing, with versions; None: of a scan that kept none


@dataclass(frozen=True, slots=True)
class Home:
    """A shard of images, and the place of their journal."""

    home: str
    images: TableRef
    output: str  # of the ingest marker

    def shard(self) -> Shard:
        return Shard(self.home, INGEST, self.home, self.output)


class Registry:
    """Reads and extends the registry of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = Log(store, keys.REGISTRY_LOG)
        self._shards = Shards(store)

    def last(self) -> int:
        """Number of the newest entry: what names the registry as it stands."""
        self._log.read()
        return self._log.last

    def _entries(self, until: int | None) -> list[LogEntry]:
        return [entry for entry in self._log.read() if until is None or entry.number <= until]

    def scans(self, until: int | None = None) -> dict[str, Scan]:
        """The live sources by name; ``until``: as the registry stood at that number."""
        return _scans(self._entries(until))

    def homes(self, until: int | None = None) -> list[Home]:
        """Every home, in order of id; ``until``: as the registry stood at that number."""
        return _homes(self._entries(until))

    def claims(self, until: int | None = None) -> list[Claim]:
        """The claims of all live sources, ordered by source and file; ``until``: as of that number.

        What has been taken down is claimed by nobody, whenever that was.
        """
        scans, denied = self.scans(until), self.denied()
        found = [claim for scan in scans.values() for claim in self._shards.read(scan.claims, Claim)]
        return sorted((c for c in found if c.image not in denied), key=lambda claim: (claim.source, claim.file))

    def unchanged(self, source: str, files: Iterable[FileVersion]) -> dict[str, ImageId]:
        """The files that are, by their versions, what the source's last scan found, and the images that they hold."""
        scan = self.scans().get(source)
        if scan is None or scan.files is None:
            return {}
        known = {row.file: row.version for row in self._shards.read(scan.files, FileVersion) if row.version}
        same = {each.file for each in files if each.version and known.get(each.file) == each.version}
        claims, denied = self._shards.read(scan.claims, Claim), self.denied()
        return {claim.file: claim.image for claim in claims if claim.file in same and claim.image not in denied}

    def rejects(self) -> list[FileReject]:
        """The files that live sources' last scans rejected, and those taken down since, ordered by source and file."""
        scans, denied = self.scans(), self.denied()
        found = [reject for scan in scans.values() for reject in self._shards.read(scan.rejects, FileReject)]
        if denied:
            claims = [claim for scan in scans.values() for claim in self._shards.read(scan.claims, Claim)]
            found += _split(claims, denied)[1]
        return sorted(found, key=lambda reject: (reject.source, reject.file))

    def denied(self, until: int | None = None) -> frozenset[ImageId]:
        """The images that were taken down; ``until``: as of that number."""
        return _denied(self._entries(until))

    def taken_down(self) -> dict[str, list[ImageId]]:
        """What was taken down by the home that held it, in order of id, whether its tables still hold it or not."""
        return _taken_down(self._entries(None))

    def deny(self, images: Collection[ImageId], reason: str) -> Mapping[str, list[ImageId]]:
        """Take images down; the homes that they live in, with their ids: also of those that were taken down before.

        ``images`` may be any: one that nobody has registered will not be.
        """

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            fresh = sorted(set(images) - _denied(entries))
            if not fresh:
                return None
            held = ((home.home, self._held(home, fresh)) for home in _homes(entries))
            homes = {home: ids for home, ids in held if ids}
            return {"kind": "takedown", "images": fresh, "homes": homes, "reason": reason, "at": time.time()}

        self._log.append_if(decide)
        asked = set(images)
        concerned = {home: sorted(asked & set(ids)) for home, ids in _taken_down(self._log.known()).items()}
        return {home: ids for home, ids in concerned.items() if ids}

    def redact(self) -> list[str]:
        """Make the registry name no table that holds an image that was taken down; the keys of those that it named.

        Claims of it become rejects of their scans, and homes' images are written again without: a home keeps its name
        and the fingerprint of what came out when it was cut, so no key changes. The log is compacted, and read back
        until it is clean. The tables themselves are the caller's to delete: their keys are kept in the log, so that one
        who goes on with a take-down is given them again.
        """
        while True:
            entries = self._log.read()
            replaced: list[str] = []
            clean = {entry.number: self._clean(entry, entries, replaced) for entry in entries}
            if not replaced:
                return sorted({key for entry in entries for key in entry.body.get("keys", [])})
            self._log.append({"kind": "redact", "keys": replaced})
            self._log.compact(lambda entries, clean=clean: [clean.get(e.number, e) for e in entries])  # type: ignore[misc]

    def _clean(self, entry: LogEntry, entries: list[LogEntry], replaced: list[str]) -> LogEntry:
        """The entry with tables that hold nothing that was taken down; ``replaced`` gets the keys of those that did."""
        body, taken = entry.body, _taken_down(entries)
        if body["kind"] != "scan" or not (denied := _denied(entries)):
            return entry
        claims, rejected = _split(self._shards.read(TableRef(**body["claims"]), Claim), denied)
        changed = dict(body)
        if rejected:
            replaced += [body["claims"]["key"], body["rejects"]["key"]]
            rejects = self._shards.read(TableRef(**body["rejects"]), FileReject)
            changed["claims"] = asdict(self._shards.write(table(claims, Claim)))
            changed["rejects"] = asdict(self._shards.write(_by_file([*rejects, *rejected], FileReject)))
        homes = []
        for raw in body["homes"]:
            home = Home(raw["home"], TableRef(**raw["images"]), raw["output"])
            if home.home in taken and (gone := self._held(home, taken[home.home])):
                replaced.append(home.images.key)
                left = [image for image in self.images(home) if image.image not in gone]
                home = replace(home, images=self._shards.write(table(left, Image)))
            homes.append(asdict(home))
        return replace(entry, body={**changed, "homes": homes})

    def _held(self, home: Home, images: Collection[ImageId]) -> list[ImageId]:
        """Those of the images that a home's table holds, in order of id."""
        return sorted({image.image for image in self.images(home)}.intersection(images))

    def images(self, home: Home) -> list[Image]:
        """A home's images, ordered by id."""
        return self._shards.read(home.images, Image)

    def register(
        self,
        source: str,
        location: str,
        images: Mapping[ImageId, Image],
        claims: Iterable[Claim],
        rejects: Iterable[FileReject],
        shard_images: int,
        settings: Mapping[str, Any] | None = None,
        files: Iterable[FileVersion] = (),
    ) -> list[Home]:
        """Make a scan's claims the source's; cut the images that have no home yet into new ones, and give these.

        Nothing is appended if the scan found what the last one did. ``images`` covers every claimed image that is new.
        ``settings`` and ``files``: how the source was looked for and what was listed, for the next scan.
        """
        claims, rejects = list(claims), list(rejects)
        files_ref = self._shards.write(_by_file(files, FileVersion))
        settings = dict(settings or {})
        written: dict[frozenset[ImageId], tuple[TableRef, TableRef]] = {}
        cut: list[Home] = []
        lost: dict[str, Home] = {}

        def tables(denied: frozenset[ImageId]) -> tuple[TableRef, TableRef]:
            if denied not in written:
                kept, rejected = _split(claims, denied)
                refs = [_by_file(kept, Claim), _by_file([*rejects, *rejected], FileReject)]
                written[denied] = (self._shards.write(refs[0]), self._shards.write(refs[1]))
            return written[denied]

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal cut
            denied = _denied(entries)
            claim_ref, reject_ref = tables(denied)
            taken = {*self._housed(_homes(entries)), *denied}
            lost.update({home.home: home for home in cut})
            cut = self._cut([images[i] for i in sorted(images) if i not in taken], shard_images)
            last = _scans(entries).get(source)
            same = last is not None and _content(last) == _content(
                Scan(source, location, claim_ref, reject_ref, settings, files_ref)
            )
            if same and not cut:
                return None
            return {
                "kind": "scan",
                "source": source,
                "location": location,
                "settings": settings,
                "files": asdict(files_ref),
                "claims": asdict(claim_ref),
                "rejects": asdict(reject_ref),
                "homes": [asdict(home) for home in cut],
            }

        self._log.append_if(decide)
        for ref in [ref for refs in [*written.values()][:-1] for ref in refs]:  # made before the last take-down
            self._store.delete(ref.key)
        self._forget(lost.values())
        return cut

    def _forget(self, lost: Iterable[Home]) -> None:
        """Erase homes that were cut and not registered since an image of theirs was taken down meanwhile.

        Others are left: a racing writer may be about to register the same cut.
        """
        denied, homes = self.denied(), {home.home for home in self.homes()}
        for home in lost:
            if home.home not in homes and self._held(home, denied):
                self._store.delete(home.shard().marker)
                self._store.delete(home.images.key)

    def remove(self, source: str) -> bool:
        """Take a source's claims away; its images leave what is made from then on, unless another claims them."""
        entry = self._log.append_if(
            lambda entries: {"kind": "remove", "source": source} if source in _scans(entries) else None
        )
        return entry is not None

    def housed(self) -> dict[ImageId, Image]:
        """Every image that has a home. Reads one table a home."""
        return self._housed(self.homes())

    def _housed(self, homes: Iterable[Home]) -> dict[ImageId, Image]:
        return {image.image: image for home in homes for image in self.images(home)}

    def _cut(self, images: list[Image], shard_images: int) -> list[Home]:
        cut: list[Home] = []
        for start in range(0, len(images), shard_images):
            part = images[start : start + shard_images]
            home = fingerprint("home", [image.image for image in part])[:32]
            content = table(part, Image)
            shard = self._shards.commit(home, INGEST, home, {"images": content}, Stats(len(part), len(part)))
            cut.append(Home(home, self._shards.refs(shard)["images"], shard.output))
        return cut


def _scans(entries: Iterable[LogEntry]) -> dict[str, Scan]:
    found: dict[str, Scan] = {}
    for entry in entries:
        body = entry.body
        if body["kind"] == "remove":
            found.pop(body["source"], None)
        elif body["kind"] == "scan":
            claims, rejects = TableRef(**body["claims"]), TableRef(**body["rejects"])
            files = TableRef(**body["files"]) if body.get("files") else None
            settings = body.get("settings", {})
            found[body["source"]] = Scan(body["source"], body["location"], claims, rejects, settings, files)
    return dict(sorted(found.items()))


def _content(scan: Scan) -> tuple[object, ...]:
    """What a scan says, whichever objects it lies in."""
    files = scan.files.rows_hash if scan.files else None
    return scan.location, scan.settings, files, scan.claims.rows_hash, scan.rejects.rows_hash


def _homes(entries: Iterable[LogEntry]) -> list[Home]:
    found = [
        Home(raw["home"], TableRef(**raw["images"]), raw["output"])
        for entry in entries
        if entry.body["kind"] == "scan"
        for raw in entry.body["homes"]
    ]
    return sorted(found, key=lambda home: home.home)


def _denied(entries: Iterable[LogEntry]) -> frozenset[ImageId]:
    return frozenset(i for entry in entries if entry.body["kind"] == "takedown" for i in entry.body["images"])


def _taken_down(entries: Iterable[LogEntry]) -> dict[str, list[ImageId]]:
    """What was taken down by the home that held it, each in order of id."""
    found: dict[str, list[ImageId]] = {}
    for entry in entries:
        if entry.body["kind"] == "takedown":
            for home, ids in entry.body["homes"].items():
                found[home] = sorted([*found.get(home, []), *ids])
    return found


def _split(claims: Iterable[Claim], denied: Collection[ImageId]) -> tuple[list[Claim], list[FileReject]]:
    """The claims that stand, and as rejects those of images that were taken down."""
    kept: list[Claim] = []
    rejected: list[FileReject] = []
    for claim in claims:
        if claim.image in denied:
            rejected.append(FileReject(claim.source, claim.file, Reason.TAKEN_DOWN, ""))
        else:
            kept.append(claim)
    return kept, rejected


def _by_file(records: Iterable[Any], record: type[Any]) -> Table:
    return table(sorted(records, key=lambda row: row.file), record)
