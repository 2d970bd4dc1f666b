"""The registry: a log of scans and removals of sources. It decides which home an image has.

An entry is ``{"kind": "scan", "source", "location", "settings", "files", "claims", "rejects", "homes"}``, whose tables
are content-named Parquet, or ``{"kind": "remove", "source"}``. A scan replaces its source's claims. ``homes`` are the
image shards that this scan cut: an image lives in the home where it was first registered, for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from taskgalaxy_ops.canonical import fingerprint
from taskgalaxy_ops.records import Claim, FileReject, FileVersion, Image, ImageId
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.storage.shards import Shard, Shards, Stats, TableRef, table

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
        """The claims of all live sources, ordered by source and file; ``until``: as of that number."""
        found = [claim for scan in self.scans(until).values() for claim in self._shards.read(scan.claims, Claim)]
        return sorted(found, key=lambda claim: (claim.source, claim.file))

    def unchanged(self, source: str, files: Iterable[FileVersion]) -> dict[str, ImageId]:
        """The files that are, by their versions, what the source's last scan found, and the images that they hold."""
        scan = self.scans().get(source)
        if scan is None or scan.files is None:
            return {}
        known = {row.file: row.version for row in self._shards.read(scan.files, FileVersion) if row.version}
        same = {each.file for each in files if each.version and known.get(each.file) == each.version}
        return {claim.file: claim.image for claim in self._shards.read(scan.claims, Claim) if claim.file in same}

    def rejects(self) -> list[FileReject]:
        """The files that live sources' last scans rejected, ordered by source and file."""
        found = [reject for scan in self.scans().values() for reject in self._shards.read(scan.rejects, FileReject)]
        return sorted(found, key=lambda reject: (reject.source, reject.file))

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
        claim_ref = self._shards.write(table(sorted(claims, key=lambda c: c.file), Claim))
        reject_ref = self._shards.write(table(sorted(rejects, key=lambda r: r.file), FileReject))
        files_ref = self._shards.write(table(sorted(files, key=lambda f: f.file), FileVersion))
        settings = dict(settings or {})
        cut: list[Home] = []

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal cut
            taken = self._housed(_homes(entries))
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
        return cut

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
        else:
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
        for raw in entry.body.get("homes", [])
    ]
    return sorted(found, key=lambda home: home.home)
