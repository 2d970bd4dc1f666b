"""The registry: a log of scans and removals of sources. It decides which home an image has.

An entry is ``{"kind": "scan", "source", "location", "settings", "files", "claims", "rejects", "homes"}``, whose tables
are content-named Parquet, or ``{"kind": "remove", "source"}``. A scan replaces its source's claims. ``homes`` are the
image shards that this scan cut: an image lives in the home where it was first registered, for good. ``claims`` names a
table of parts: the source's claims of one home's images each, so that what is known of a home is read without others,
and a scan writes only the parts that changed.

``{"kind": "takedown", "images", "homes", "reason", "at"}`` denies images: from then on nobody claims them, and files
that hold them are rejects. ``homes`` are those that held them, with their ids: a home remembers what was taken down in
it, also once its tables hold it no more. ``{"kind": "rewrite", "keys"}`` names tables that others were written for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from heapq import merge
from itertools import islice
from typing import Any

from taskgalaxy_ops.canonical import canonical_json, fingerprint, sha256_hex
from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.records import Claim, FileReject, FileVersion, Image, ImageId, Reason
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.housed import Housed
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.storage.scanned import Scanned
from taskgalaxy_ops.storage.shards import Shard, Shards, Stats, Table, TableRef, table

INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """A table of a source's claims of the images of one home, in order of image."""

    home: str
    key: str
    rows: int
    rows_hash: str
    sha256: str

    @property
    def table(self) -> TableRef:
        return TableRef(self.key, self.rows, self.rows_hash, self.sha256)


@dataclass(frozen=True, slots=True)
class Claims:
    """A scan's claims: how many, and the table of their parts."""

    rows: int
    parts: TableRef


@dataclass(frozen=True, slots=True)
class Scan:
    """A source as its last scan found it."""

    source: str
    location: str
    claims: Claims
    rejects: TableRef
    settings: Mapping[str, Any] = field(default_factory=dict)  # how it was looked for: suffixes, limit, licence …
    files: TableRef | None = None  # the listing, with versions; None: of a scan that kept none


@dataclass(frozen=True, slots=True)
class Home:
    """A shard of images, and the place of their journal."""

    home: str
    images: TableRef
    output: str  # of the ingest marker
    cut: int  # images that it was cut with: ``images`` has fewer once some were taken down

    def shard(self) -> Shard:
        return Shard(self.home, INGEST, self.home, self.output)


class Registry:
    """Reads and extends the registry of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = Log(store, keys.REGISTRY_LOG)
        self._shards = Shards(store)
        self._housed = Housed()
        self._seen: _Standing | None = None

    def last(self) -> int:
        """Number of the newest entry: what names the registry as it stands."""
        self._log.read()
        return self._log.last

    def _standing(self, until: int | None = None) -> _Standing:
        """The registry as of now, or as it stood at a number."""
        entries = [entry for entry in self._log.read() if until is None or entry.number <= until]
        number = self._log.last if until is None else min(until, self._log.last)
        return self._remembered(_Standing(self._shards, number, entries))

    def _as_read(self) -> _Standing:
        """The registry as it was last read; asks the store only if it never was."""
        if self._log.last == 0:
            return self._standing()
        return self._remembered(_Standing(self._shards, self._log.last, self._log.known()))

    def _remembered(self, found: _Standing) -> _Standing:
        """The same with what has been read of it before."""
        if self._seen is None or self._seen != found:
            self._seen = found
        return self._seen

    def scans(self, until: int | None = None) -> dict[str, Scan]:
        """The live sources by name; ``until``: as the registry stood at that number."""
        return self._standing(until).scans

    def homes(self, until: int | None = None) -> list[Home]:
        """Every home, in order of id; ``until``: as the registry stood at that number."""
        return self._standing(until).homes

    def origins(self) -> dict[str, str]:
        """By home: the source whose scan cut it, live or not. What is asked about its images counts for that source."""
        return self._standing().origins

    def homes_of(self, sources: Collection[str] | None = None, until: int | None = None) -> list[Home]:
        """The homes that these live sources' images live in, by default all sources'; in order of id."""
        standing = self._standing(until)
        wanted = {
            part.home
            for source, parts in standing.parts.items()
            if sources is None or source in sources
            for part in parts
        }
        return [home for home in standing.homes if home.home in wanted]

    def with_claims(self, homes: Iterable[Home]) -> list[Home]:
        """Those of which a live source still claims an image, and not everything was taken down, as last read.

        Others are dealt, too, so that lanes stay what they were, and there is nothing to do about them.
        """
        standing = self._as_read()
        return [
            home
            for home in homes
            if any(part.rows for part in standing.parts_of(home.home))
            and home.cut > len(standing.taken_down.get(home.home, ()))
        ]

    def claims(self, until: int | None = None) -> Iterator[Claim]:
        """The claims of all live sources, ordered by source, home and image; ``until``: as of that number.

        What has been taken down is claimed by nobody, whenever that was.
        """
        standing, denied = self._standing(until), self.denied()
        for parts in standing.parts.values():
            for part in parts:
                yield from self._claims(part, denied)

    def claims_of(self, home: str) -> list[Claim]:
        """The claims of a home's images, ordered by image and source, as the registry was last read.

        Reads one table a source, and asks the registry's log nothing: callers go home by home.
        """
        standing = self._as_read()
        found = [claim for part in standing.parts_of(home) for claim in self._claims(part, standing.denied)]
        return sorted(found, key=lambda claim: (claim.image, claim.source, claim.file))

    def _claims(self, part: ClaimPart, denied: Collection[ImageId]) -> Iterator[Claim]:
        return (claim for claim in self._shards.stream(part.table, Claim) if claim.image not in denied)

    def claim_parts(self) -> list[ClaimPart]:
        """The parts of all live sources' claims: those of what was taken down since may be among them."""
        return [part for parts in self._standing().parts.values() for part in parts]

    def last_scan(self, source: str) -> tuple[Iterable[FileVersion], Iterable[Claim]]:
        """What a source's last scan listed and claimed; nothing where there is none."""
        standing = self._standing()
        scan = standing.scans.get(source)
        if scan is None or scan.files is None:
            return (), ()
        claims = (claim for part in standing.parts[source] for claim in self._claims(part, standing.denied))
        return self._shards.stream(scan.files, FileVersion), claims

    def rejects(self, source: str | None = None) -> Iterator[FileReject]:
        """The files that live sources' last scans rejected, and those taken down since, ordered by source and file.

        ``source``: those of this one alone.
        """
        standing = self._standing()
        for name, scan in standing.scans.items():
            if source is None or name == source:
                taken = [
                    _taken(claim)
                    for part in standing.parts[name]
                    if part.home in standing.taken_down
                    for claim in self._shards.stream(part.table, Claim)
                    if claim.image in standing.denied
                ]
                yield from _by_file(self._shards.stream(scan.rejects, FileReject), taken)

    def images(self, home: Home) -> list[Image]:
        """A home's images, ordered by id."""
        return self._shards.read(home.images, Image)

    def image_ids(self, home: Home) -> list[ImageId]:
        """The ids of a home's images, in order; the rest of the table is not decoded."""
        return self._shards.column(home.images, "image")

    def housed(self) -> dict[ImageId, Image]:
        """Every image that has a home. Reads one table a home, and keeps all of them."""
        return {image.image: image for home in self.homes() for image in self.images(home)}

    def known(self) -> Housed:
        """Which images have a home: 20 bytes an image. Reads one column a home, once."""
        return self._known(self.homes())

    def _known(self, homes: Iterable[Home]) -> Housed:
        there = set(self._housed.homes)
        self._housed.extend((home.home, self.image_ids(home)) for home in homes if home.home not in there)
        return self._housed

    # What is claimed by nobody

    def dead(self, home: Home) -> list[ImageId]:
        """A home's images that no live source claims, and what was taken down in it, in order of id.

        As the registry was last read.
        """
        standing = self._as_read()
        held = {*self.image_ids(home), *standing.taken_down.get(home.home, ())}
        for part in standing.parts_of(home.home):
            held.difference_update(set(self._shards.column(part.table, "image")) - standing.denied)
        return sorted(held)

    def dead_hashes(self) -> dict[str, str]:
        """By home: the hash of its dead images, where there are any among the homes that a live source refers to.

        Where nothing was taken down and a source claims as many images as the home has, there is none, and nothing is
        read: within a source an image is claimed once. What had to be read is kept for the next run, by the registry's
        number.
        """
        standing = self._standing()
        doubtful = [home for home in standing.homes if not standing.wholly_claimed(home)]
        if not doubtful:
            return {}
        key = keys.cache(f"registry-{standing.number}")
        try:
            found: dict[str, str] = json.loads(self._store.get(key))
        except (NotFoundError, ValueError):
            dead = ((home.home, self.dead(home)) for home in doubtful)
            found = {home: sha256_hex(canonical_json(ids)) for home, ids in dead if ids}
            self._store.put_if_absent(key, canonical_json(found))
        return found

    # Scans and removals

    def register(
        self,
        location: str,
        found: Scanned,
        shard_images: int,
        settings: Mapping[str, Any] | None = None,
        files: Iterable[FileVersion] = (),
    ) -> list[Home]:
        """Make a scan's claims its source's; cut the images that have no home yet into new ones, and give these.

        Nothing is appended if the scan found what the last one did. ``found`` has every claimed image that is new.
        ``settings`` and ``files``: how the source was looked for and what was listed, for the next scan. What was
        taken down, before or during the scan, is rejected here and gets no home.
        """
        draft = _Draft(self._store)
        listing = table(files, FileVersion)
        cut: list[Home] = []
        lost: dict[str, Home] = {}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal cut
            standing = _Standing(self._shards, 0, entries)
            lost.update({home.home: home for home in cut})
            housed, fresh = self._known(standing.homes), Housed()
            cut = []
            fresh.extend(self._cut(found, housed, standing.denied, shard_images, cut))
            last = standing.scans.get(found.source)
            parts = draft.parts(
                found,
                lambda image: None if image in standing.denied else housed.get(image) or fresh.get(image),
                standing.parts[found.source] if last else (),
            )
            scan = Scan(
                found.source,
                location,
                draft.claims(parts, last.claims if last else None),
                draft.put(
                    "rejects", table(found.file_rejects(standing.denied), FileReject), last.rejects if last else None
                ),
                dict(settings or {}),
                draft.put("files", listing, last.files if last else None),
            )
            if scan == last and not cut:
                return None
            return {"kind": "scan", **asdict(scan), "homes": [asdict(home) for home in cut]}

        entry = self._log.append_if(decide)
        draft.drop_all_but(self._named(entry.body) if entry else set())
        self._forget(lost.values())
        return cut

    def _cut(
        self, found: Scanned, housed: Housed, denied: Collection[ImageId], shard_images: int, cut: list[Home]
    ) -> Iterator[tuple[str, list[ImageId]]]:
        """Cut the new images into homes, in order of image; gives these with their ids, and adds them to ``cut``."""
        images = (image for image in found.new_images() if image.image not in denied and image.image not in housed)
        while part := list(islice(images, shard_images)):
            ids = [image.image for image in part]
            home = fingerprint("home", ids)[:32]
            content = table(part, Image)
            shard = self._shards.commit(home, INGEST, home, {"images": content}, Stats(len(part), len(part)))
            cut.append(Home(home, self._shards.refs(shard)["images"], shard.output, len(part)))
            yield home, ids

    def _forget(self, lost: Iterable[Home]) -> None:
        """Erase homes that were cut and not registered since an image of theirs was taken down meanwhile.

        Others are left: a racing writer may be about to register the same cut.
        """
        standing = self._as_read()
        homes = {home.home for home in standing.homes}
        for home in lost:
            if home.home not in homes and not standing.denied.isdisjoint(self.image_ids(home)):
                self._store.delete(home.shard().marker)
                self._store.delete(home.images.key)

    def remove(self, source: str) -> bool:
        """Take a source's claims away; its images leave what is made from then on, unless another claims them."""
        entry = self._log.append_if(
            lambda entries: {"kind": "remove", "source": source} if source in _scans(entries) else None
        )
        return entry is not None

    # Take-downs

    def denied(self, until: int | None = None) -> frozenset[ImageId]:
        """The images that were taken down; ``until``: as of that number."""
        return self._standing(until).denied

    def taken_down(self) -> dict[str, list[ImageId]]:
        """What was taken down by the home that held it, in order of id, whether its tables still hold it or not."""
        return self._standing().taken_down

    def deny(self, images: Collection[ImageId], reason: str) -> Mapping[str, list[ImageId]]:
        """Take images down; the homes that they live in, with their ids: also of those that were taken down before.

        ``images`` may be any: one that nobody has registered will not be.
        """

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            standing = _Standing(self._shards, 0, entries)
            fresh = sorted(set(images) - standing.denied)
            if not fresh:
                return None
            housed, homes = self._known(standing.homes), dict[str, list[ImageId]]()
            for image in fresh:
                if (home := housed.get(image)) is not None:
                    homes.setdefault(home, []).append(image)
            return {"kind": "takedown", "images": fresh, "homes": homes, "reason": reason, "at": time.time()}

        self._log.append_if(decide)
        asked = set(images)
        concerned = {home: sorted(asked & set(ids)) for home, ids in self._as_read().taken_down.items()}
        return {home: ids for home, ids in concerned.items() if ids}

    def redact(self) -> list[str]:
        """Make the registry name no table that holds an image that was taken down; the keys of those that it named.

        Claims of it become rejects of their scans, and homes' images are written again without: a home keeps its name
        and the fingerprint of what came out when it was cut, so no key changes. The tables themselves are the caller's
        to delete: their keys are kept in the log, so that one who goes on with a take-down is given them again.
        """
        while True:
            standing = self._standing()
            if not standing.denied:
                return []
            rewriting = _Redaction(self._store, standing)
            if not self._rewrite([rewriting.entry(entry) for entry in self._log.known()], rewriting.replaced):
                return self._replaced()

    def upgrade(self) -> bool:
        """Bring a registry of layout 1, whose scans have one table of claims each, to this layout; whether it was one.

        Homes and what came out of them stay what they are, so that nothing is computed or asked again.
        """
        changed = False
        while True:
            self._log.read()
            upgrading = _Upgrade(self._store, self._log.known())
            if not self._rewrite([upgrading.entry(entry) for entry in self._log.known()], upgrading.replaced):
                break
            changed = True
        for key in self._replaced():  # nothing refers to them, and a take-down would not find them
            self._store.delete(key)
        return changed

    def _rewrite(self, entries: Iterable[LogEntry], replaced: Collection[str]) -> bool:
        """Compact the log to these entries, if tables were replaced in them; False: there is nothing to do.

        Another compaction may come first, or write back what it read before: the caller looks again.
        """
        changed = {entry.number: entry for entry in entries}
        if not replaced:
            return False
        self._log.append({"kind": "rewrite", "keys": sorted(replaced)})
        self._log.compact(lambda entries: [changed.get(entry.number, entry) for entry in entries])
        self._seen = None
        return True

    def _replaced(self) -> list[str]:
        """What was replaced and nothing names any more: scans share tables, of which another may still need one."""
        replaced = {key for e in self._log.known() if e.body["kind"] == "rewrite" for key in e.body["keys"]}
        return sorted(replaced - self.named())

    # What its entries name

    def tables(self) -> Iterator[tuple[TableRef, type[Any]]]:
        """The tables that the live sources' scans name, and of what."""
        standing = self._standing()
        for name, scan in standing.scans.items():
            yield scan.claims.parts, ClaimPart
            for part in standing.parts[name]:
                yield part.table, Claim
            yield scan.rejects, FileReject
            if scan.files is not None:
                yield scan.files, FileVersion

    def named(self) -> set[str]:
        """The keys of all tables that an entry names, those of superseded scans included: lanes may still read them."""
        entries = self._log.read()
        return {key for entry in entries if entry.body["kind"] == "scan" for key in self._named(entry.body)}

    def _named(self, body: Mapping[str, Any]) -> set[str]:
        scan = _scan(body)
        refs = [scan.claims.parts, scan.rejects, *([scan.files] if scan.files else [])]
        parts = self._shards.stream(scan.claims.parts, ClaimPart)
        return (
            {ref.key for ref in refs} | {part.key for part in parts} | {raw["images"]["key"] for raw in body["homes"]}
        )


class _Standing:
    """The registry at one number: what its entries come to. Tables of parts are read when they are first asked for."""

    def __init__(self, shards: Shards, number: int, entries: list[LogEntry]) -> None:
        self._shards = shards
        self._entries = entries
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Standing) and self._entries == other._entries

    @cached_property
    def scans(self) -> dict[str, Scan]:
        return _scans(self._entries)

    @cached_property
    def homes(self) -> list[Home]:
        found = [_home(raw) for entry in self._entries if entry.body["kind"] == "scan" for raw in entry.body["homes"]]
        return sorted(found, key=lambda home: home.home)

    @cached_property
    def origins(self) -> dict[str, str]:
        cut = [(entry.body["source"], entry.body["homes"]) for entry in self._entries if entry.body["kind"] == "scan"]
        return {raw["home"]: source for source, homes in cut for raw in homes}

    @cached_property
    def denied(self) -> frozenset[ImageId]:
        return frozenset(i for entry in self._entries if entry.body["kind"] == "takedown" for i in entry.body["images"])

    @cached_property
    def taken_down(self) -> dict[str, list[ImageId]]:
        found: dict[str, list[ImageId]] = {}
        for entry in self._entries:
            if entry.body["kind"] == "takedown":
                for home, ids in entry.body["homes"].items():
                    found[home] = sorted([*found.get(home, []), *ids])
        return found

    @cached_property
    def parts(self) -> dict[str, list[ClaimPart]]:
        """By live source, in order of home."""
        return {name: self._shards.read(scan.claims.parts, ClaimPart) for name, scan in self.scans.items()}

    @cached_property
    def _by_home(self) -> dict[str, list[ClaimPart]]:
        found: dict[str, list[ClaimPart]] = {}
        for parts in self.parts.values():
            for part in parts:
                found.setdefault(part.home, []).append(part)
        return found

    def parts_of(self, home: str) -> list[ClaimPart]:
        """Of all live sources, in order of source."""
        return self._by_home.get(home, [])

    def wholly_claimed(self, home: Home) -> bool:
        """Whether it is known, without reading, that all images of a home are claimed; or no source refers to it."""
        parts = self.parts_of(home.home)
        whole = any(part.rows == home.images.rows for part in parts)
        return not parts or (whole and home.home not in self.taken_down)


class _Draft:
    """The tables of an entry that is being decided; what is there already is referred to, not written again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shards = Shards(store)
        self._written: dict[tuple[str, str], TableRef] = {}  # by kind and hash of rows

    def put(self, kind: str, content: Table, there: TableRef | None = None) -> TableRef:
        """``there``: a table of the kind, which is taken if it has the same rows."""
        if there is not None and there.rows_hash == content.rows_hash:
            return there
        if (kind, content.rows_hash) not in self._written:
            self._written[kind, content.rows_hash] = self._shards.write(content)
        return self._written[kind, content.rows_hash]

    def parts(
        self, found: Scanned, home_of: Callable[[ImageId], str | None], there: Iterable[ClaimPart] = ()
    ) -> list[ClaimPart]:
        """The claims of images that have a home, cut by home."""
        last = {part.home: part.table for part in there}
        return [
            ClaimPart(home, **asdict(self.put("claims", table(claims, Claim), last.get(home))))
            for home, claims in found.claims_by_home(home_of)
        ]

    def claims(self, parts: Sequence[ClaimPart], there: Claims | None = None) -> Claims:
        """A scan's claims of these parts."""
        ref = self.put("parts", table(parts, ClaimPart), there.parts if there else None)
        return Claims(sum(part.rows for part in parts), ref)

    def drop_all_but(self, named: Collection[str]) -> None:
        """Delete what was written for entries that were not appended: nobody else knows of it."""
        for ref in self._written.values():
            if ref.key not in named:
                self._store.delete(ref.key)


class _Redaction:
    """Entries with tables that hold nothing that was taken down."""

    def __init__(self, store: Store, standing: _Standing) -> None:
        self._shards = Shards(store)
        self._draft = _Draft(store)
        self._standing = standing
        self._clean: dict[str, tuple[ClaimPart, list[FileReject]]] = {}  # scans share parts
        self.replaced: set[str] = set()  # keys

    def entry(self, entry: LogEntry) -> LogEntry:
        if entry.body["kind"] != "scan":
            return entry
        scan, rejected = _scan(entry.body), list[FileReject]()
        parts = []
        for part in self._shards.read(scan.claims.parts, ClaimPart):
            clean, taken = self._part(part)
            parts.append(clean)
            rejected += taken
        body = dict(entry.body)
        if rejected:
            self.replaced |= {scan.claims.parts.key, scan.rejects.key}
            body["claims"] = asdict(self._draft.claims(parts))
            rejects = _by_file(self._shards.stream(scan.rejects, FileReject), rejected)
            body["rejects"] = asdict(self._draft.put("rejects", table(rejects, FileReject)))
        body["homes"] = [asdict(self._home(_home(raw))) for raw in body["homes"]]
        return LogEntry(entry.number, body)

    def _part(self, part: ClaimPart) -> tuple[ClaimPart, list[FileReject]]:
        """A part that loses all its rows stays, so that lanes are dealt the same homes as before."""
        if part.home not in self._standing.taken_down:
            return part, []
        if part.key not in self._clean:
            claims = self._shards.read(part.table, Claim)
            kept = [claim for claim in claims if claim.image not in self._standing.denied]
            taken = [_taken(claim) for claim in claims if claim.image in self._standing.denied]
            clean = part
            if taken:
                self.replaced.add(part.key)
                clean = ClaimPart(part.home, **asdict(self._draft.put("claims", table(kept, Claim))))
            self._clean[part.key] = (clean, taken)
        return self._clean[part.key]

    def _home(self, home: Home) -> Home:
        gone = self._standing.taken_down.get(home.home, [])
        if not gone or set(gone).isdisjoint(self._shards.column(home.images, "image")):
            return home
        self.replaced.add(home.images.key)
        kept = (image for image in self._shards.stream(home.images, Image) if image.image not in gone)
        return replace(home, images=self._draft.put("images", table(kept, Image)))


class _Upgrade:
    """Entries of layout 1 in this layout: claims by home, and homes that know how many images they were cut with."""

    def __init__(self, store: Store, entries: Iterable[LogEntry]) -> None:
        self._shards = Shards(store)
        self._draft = _Draft(store)
        self._housed = Housed()
        self.replaced: set[str] = set()  # keys
        for body in (entry.body for entry in entries if entry.body["kind"] == "scan"):
            images = ((raw["home"], TableRef(**raw["images"])) for raw in body["homes"])
            self._housed.extend((home, self._shards.column(ref, "image")) for home, ref in images)

    def entry(self, entry: LogEntry) -> LogEntry:
        body = entry.body
        if body["kind"] != "scan" or "key" not in body["claims"]:
            return entry
        ref = TableRef(**body["claims"])
        self.replaced.add(ref.key)
        with Scanned(body["source"]) as found:
            for claim in self._shards.stream(ref, Claim):
                found.claim(claim)
            claims = self._draft.claims(self._draft.parts(found, self._housed.get))
        homes = [{**raw, "cut": raw["images"]["rows"]} for raw in body["homes"]]
        return LogEntry(entry.number, {**body, "claims": asdict(claims), "homes": homes})


def _scans(entries: Iterable[LogEntry]) -> dict[str, Scan]:
    found: dict[str, Scan] = {}
    for entry in entries:
        if entry.body["kind"] == "remove":
            found.pop(entry.body["source"], None)
        elif entry.body["kind"] == "scan":
            found[entry.body["source"]] = _scan(entry.body)
    return dict(sorted(found.items()))


def _scan(body: Mapping[str, Any]) -> Scan:
    claims = Claims(body["claims"]["rows"], TableRef(**body["claims"]["parts"]))
    files = TableRef(**body["files"]) if body.get("files") else None
    return Scan(body["source"], body["location"], claims, TableRef(**body["rejects"]), body.get("settings", {}), files)


def _home(raw: Mapping[str, Any]) -> Home:
    return Home(raw["home"], TableRef(**raw["images"]), raw["output"], raw["cut"])


def _taken(claim: Claim) -> FileReject:
    """What is left of a claim once its image was taken down."""
    return FileReject(claim.source, claim.file, Reason.TAKEN_DOWN, "")


def _by_file(rejects: Iterable[FileReject], more: Iterable[FileReject]) -> Iterator[FileReject]:
    """Rejects in order of file, and others in any, as one stream in order of file."""
    return merge(rejects, sorted(more, key=_file), key=_file)


def _file(reject: FileReject) -> str:
    return reject.file
