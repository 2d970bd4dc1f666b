"""The registry: a log of scans and removals of sources. It decides which home an image has.

An entry is ``{"kind": "scan", "source", "location", "claims", "rejects", "homes"}``, whose tables are content-named
Parquet, or ``{"kind": "remove", "source"}``. A scan replaces its source's claims. ``homes`` are the image shards that
this scan cut: an image lives in the home where it was first registered, for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from taskgalaxy_ops.canonical import fingerprint
from taskgalaxy_ops.records import Claim, FileReject, Image, ImageId
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

    def scans(self) -> dict[str, Scan]:
        """The live sources by name."""
        return _scans(self._log.read())

    def homes(self) -> list[Home]:
        """Every home, in order of id."""
        return _homes(self._log.read())

    def claims(self) -> list[Claim]:
        """The claims of all live sources, ordered by source and file."""
        found = [claim for scan in self.scans().values() for claim in self._shards.read(scan.claims, Claim)]
        return sorted(found, key=lambda claim: (claim.source, claim.file))

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
    ) -> list[Home]:
        """Make a scan's claims the source's; cut the images that have no home yet into new ones, and give these.

        Nothing is appended if the scan found what the last one did. ``images`` covers every claimed image that is new.
        """
        claim_ref = self._shards.write(table(sorted(claims, key=lambda c: c.file), Claim))
        reject_ref = self._shards.write(table(sorted(rejects, key=lambda r: r.file), FileReject))
        cut: list[Home] = []

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal cut
            taken = self._housed(_homes(entries))
            cut = self._cut([images[i] for i in sorted(images) if i not in taken], shard_images)
            last = _scans(entries).get(source)
            same = last is not None and (last.location, last.claims.rows_hash, last.rejects.rows_hash) == (
                location,
                claim_ref.rows_hash,
                reject_ref.rows_hash,
            )
            if same and not cut:
                return None
            return {
                "kind": "scan",
                "source": source,
                "location": location,
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
            found[body["source"]] = Scan(body["source"], body["location"], claims, rejects)
    return dict(sorted(found.items()))


def _homes(entries: Iterable[LogEntry]) -> list[Home]:
    found = [
        Home(raw["home"], TableRef(**raw["images"]), raw["output"])
        for entry in entries
        for raw in entry.body.get("homes", [])
    ]
    return sorted(found, key=lambda home: home.home)
