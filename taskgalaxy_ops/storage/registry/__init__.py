"""The registry: a log of scans and removals of sources. It decides which image shard an image has.

An entry is ``{"kind": "scan", "source", "location", "settings", "files", "claims", "rejects", "homes"}``, whose tables
are content-named Parquet, or ``{"kind": "remove", "source"}``. A scan replaces its source's claims. ``homes`` are the
image shards that this scan cut: an image lives in the image shard where it was first registered, for good. ``claims``
names a table of parts: the source's claims of one image shard's images each, so that what is known of an image shard is
read without others, and a scan writes only the parts that changed.

``{"kind": "takedown", "images", "homes", "reason", "at"}`` denies images: from then on nobody claims them, and files
that hold them are rejects. ``homes`` are those that held them, with their ids: an image shard remembers what was taken
down in it, also once its tables hold it no more. ``{"kind": "rewrite", "keys"}`` names tables that others were written
for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.hashing import canonical_json, fingerprint, sha256_hex
from taskgalaxy_ops.records import Claim, FileReject, FileVersion, Image, ImageId
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.image_index import ImageIndex
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.storage.marker_index import keep
from taskgalaxy_ops.storage.registry.redaction import Redaction
from taskgalaxy_ops.storage.registry.state import (
    INGEST,
    ClaimPart,
    ImageShard,
    RegistryState,
    Scan,
    merged_by_file,
    read_scan,
    read_scans,
    taken_down_reject,
)
from taskgalaxy_ops.storage.registry.tables import TableDraft
from taskgalaxy_ops.storage.registry.upgrade import RegistryUpgrade
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.storage.shards import StageOutputs, Stats, TableRef, table


class Registry:
    """Reads and extends the registry of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = Log(store, keys.REGISTRY_LOG)
        self._stage_outputs = StageOutputs(store)
        self._image_index = ImageIndex()
        self._seen: RegistryState | None = None

    def last(self) -> int:
        """Number of the newest entry: what names the registry as it stands."""
        self._log.read()
        return self._log.last

    def _standing(self, until: int | None = None) -> RegistryState:
        """The registry as of now, or as it stood at a number."""
        entries = [entry for entry in self._log.read() if until is None or entry.number <= until]
        number = self._log.last if until is None else min(until, self._log.last)
        return self._remembered(RegistryState(self._stage_outputs, number, entries))

    def _as_read(self) -> RegistryState:
        """The registry as it was last read; asks the store only if it never was."""
        if self._log.last == 0:
            return self._standing()
        return self._remembered(RegistryState(self._stage_outputs, self._log.last, self._log.known()))

    def _remembered(self, found: RegistryState) -> RegistryState:
        """The same with what has been read of it before."""
        if self._seen is None or self._seen != found:
            self._seen = found
        return self._seen

    def scans(self, until: int | None = None) -> dict[str, Scan]:
        """The live sources by name; ``until``: as the registry stood at that number."""
        return self._standing(until).scans

    def shards(self, until: int | None = None) -> list[ImageShard]:
        """Every image shard, in order of id; ``until``: as the registry stood at that number."""
        return self._standing(until).shards

    def origins(self) -> dict[str, str]:
        """By image shard.

        The source whose scan cut it, live or not. What is asked about its images counts for that source.
        """
        return self._standing().origins

    def shards_of(self, sources: Collection[str] | None = None, until: int | None = None) -> list[ImageShard]:
        """The image shards that these live sources' images live in, by default all sources'; in order of id."""
        standing = self._standing(until)
        wanted = {
            part.home
            for source, parts in standing.parts.items()
            if sources is None or source in sources
            for part in parts
        }
        return [shard for shard in standing.shards if shard.id in wanted]

    def with_claims(self, shards: Iterable[ImageShard]) -> list[ImageShard]:
        """Those of which a live source still claims an image, and not everything was taken down, as last read.

        Others are dealt, too, so that lanes stay what they were, and there is nothing to do about them.
        """
        standing = self._as_read()
        return [
            shard
            for shard in shards
            if any(part.rows for part in standing.parts_of(shard.id))
            and shard.cut > len(standing.taken_down.get(shard.id, ()))
        ]

    def claims(self, until: int | None = None) -> Iterator[Claim]:
        """The claims of all live sources, ordered by source, image shard and image; ``until``: as of that number.

        What has been taken down is claimed by nobody, whenever that was.
        """
        standing, denied = self._standing(until), self.denied()
        for parts in standing.parts.values():
            for part in parts:
                yield from self._claims(part, denied)

    def claims_of(self, shard: str) -> list[Claim]:
        """The claims of an image shard's images, ordered by image and source, as the registry was last read.

        Reads one table a source, and asks the registry's log nothing: callers go image shard by image shard.
        """
        standing = self._as_read()
        found = [claim for part in standing.parts_of(shard) for claim in self._claims(part, standing.denied)]
        return sorted(found, key=lambda claim: (claim.image, claim.source, claim.file))

    def _claims(self, part: ClaimPart, denied: Collection[ImageId]) -> Iterator[Claim]:
        return (claim for claim in self._stage_outputs.stream(part.table, Claim) if claim.image not in denied)

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
        return self._stage_outputs.stream(scan.files, FileVersion), claims

    def rejects(self, source: str | None = None) -> Iterator[FileReject]:
        """The files that live sources' last scans rejected, and those taken down since, ordered by source and file.

        ``source``: those of this one alone.
        """
        standing = self._standing()
        for name, scan in standing.scans.items():
            if source is None or name == source:
                taken = [
                    taken_down_reject(claim)
                    for part in standing.parts[name]
                    if part.home in standing.taken_down
                    for claim in self._stage_outputs.stream(part.table, Claim)
                    if claim.image in standing.denied
                ]
                yield from merged_by_file(self._stage_outputs.stream(scan.rejects, FileReject), taken)

    def images(self, shard: ImageShard) -> list[Image]:
        """An image shard's images, ordered by id."""
        return self._stage_outputs.read(shard.images, Image)

    def image_ids(self, shard: ImageShard) -> list[ImageId]:
        """The ids of an image shard's images, in order; the rest of the table is not decoded."""
        return self._stage_outputs.column(shard.images, "image")

    def image_index(self) -> dict[ImageId, Image]:
        """Every image that has an image shard. Reads one table an image shard, and keeps all of them."""
        return {image.image: image for shard in self.shards() for image in self.images(shard)}

    def known(self) -> ImageIndex:
        """Which images have an image shard: 20 bytes an image. Reads one column an image shard, once."""
        return self._known(self.shards())

    def _known(self, shards: Iterable[ImageShard]) -> ImageIndex:
        there = set(self._image_index.shards)
        self._image_index.extend((shard.id, self.image_ids(shard)) for shard in shards if shard.id not in there)
        return self._image_index

    # What is claimed by nobody

    def dead(self, shard: ImageShard) -> list[ImageId]:
        """An image shard's images that no live source claims, and what was taken down in it, in order of id.

        As the registry was last read.
        """
        standing = self._as_read()
        held = {*self.image_ids(shard), *standing.taken_down.get(shard.id, ())}
        for part in standing.parts_of(shard.id):
            held.difference_update(set(self._stage_outputs.column(part.table, "image")) - standing.denied)
        return sorted(held)

    def dead_hashes(self) -> dict[str, str]:
        """By image shard that a live source refers to: the hash of its dead images, where there are any.

        Where nothing was taken down and a source claims as many images as the image shard has, there is none, and
        nothing is read: within a source an image is claimed once. What had to be read is kept for the next run, by the
        registry's number.
        """
        standing = self._standing()
        doubtful = [shard for shard in standing.shards if not standing.wholly_claimed(shard)]
        if not doubtful:
            return {}
        key = keys.cache(f"registry-{standing.number}")
        try:
            found: dict[str, str] = json.loads(self._store.get(key))
        except (NotFoundError, ValueError):
            dead = ((shard.id, self.dead(shard)) for shard in doubtful)
            found = {shard: sha256_hex(canonical_json(ids)) for shard, ids in dead if ids}
            keep(self._store, key, canonical_json(found))
        return found

    # Scans and removals

    def register(
        self,
        location: str,
        found: ScanStaging,
        shard_images: int,
        settings: Mapping[str, Any] | None = None,
        files: Iterable[FileVersion] = (),
    ) -> list[ImageShard]:
        """Make a scan's claims its source's; cut the images that have no image shard yet into new ones, and give these.

        Nothing is appended if the scan found what the last one did. ``found`` has every claimed image that is new.
        ``settings`` and ``files``: how the source was looked for and what was listed, for the next scan. What was
        taken down, before or during the scan, is rejected here and gets no image shard.
        """
        draft = TableDraft(self._store)
        listing = table(files, FileVersion)
        cut: list[ImageShard] = []
        lost: dict[str, ImageShard] = {}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal cut
            standing = RegistryState(self._stage_outputs, 0, entries)
            lost.update({shard.id: shard for shard in cut})
            image_index, fresh = self._known(standing.shards), ImageIndex()
            cut = []
            fresh.extend(self._cut(found, image_index, standing.denied, shard_images, cut))
            last = standing.scans.get(found.source)
            parts = draft.parts(
                found,
                lambda image: None if image in standing.denied else image_index.get(image) or fresh.get(image),
                standing.parts[found.source] if last else (),
            )
            scan = Scan(
                source=found.source,
                location=location,
                claims=draft.claims(parts, last.claims if last else None),
                rejects=draft.put(
                    "rejects", table(found.file_rejects(standing.denied), FileReject), last.rejects if last else None
                ),
                settings=dict(settings or {}),
                files=draft.put("files", listing, last.files if last else None),
            )
            if scan == last and not cut:
                return None
            return {"kind": "scan", **asdict(scan), "homes": [shard.to_json() for shard in cut]}

        entry = self._log.append_if(decide)
        draft.drop_all_but(self._named(entry.body) if entry else set())
        self._forget(lost.values())
        return cut

    def _cut(
        self,
        found: ScanStaging,
        image_index: ImageIndex,
        denied: Collection[ImageId],
        shard_images: int,
        cut: list[ImageShard],
    ) -> Iterator[tuple[str, list[ImageId]]]:
        """Cut the new images into image shards, in order of image.

        Gives these with their ids, and adds them to ``cut``.
        """
        images = (image for image in found.new_images() if image.image not in denied and image.image not in image_index)
        while part := list(islice(images, shard_images)):
            ids = [image.image for image in part]
            shard = fingerprint("home", ids)[:32]
            content = table(part, Image)
            stage_output = self._stage_outputs.commit(
                shard, INGEST, shard, {"images": content}, Stats(len(part), len(part))
            )
            cut.append(
                ImageShard(shard, self._stage_outputs.refs(stage_output)["images"], stage_output.output, len(part))
            )
            yield shard, ids

    def _forget(self, lost: Iterable[ImageShard]) -> None:
        """Erase image shards that were cut and not registered since an image of theirs was taken down meanwhile.

        Others are left: a racing writer may be about to register the same cut.
        """
        standing = self._as_read()
        shards = {shard.id for shard in standing.shards}
        for shard in lost:
            if shard.id not in shards and not standing.denied.isdisjoint(self.image_ids(shard)):
                self._store.delete(shard.stage_output().marker)
                self._store.delete(shard.images.key)

    def remove(self, source: str) -> bool:
        """Take a source's claims away; its images leave what is made from then on, unless another claims them."""
        entry = self._log.append_if(
            lambda entries: {"kind": "remove", "source": source} if source in read_scans(entries) else None
        )
        return entry is not None

    # Take-downs

    def denied(self, until: int | None = None) -> frozenset[ImageId]:
        """The images that were taken down; ``until``: as of that number."""
        return self._standing(until).denied

    def taken_down(self) -> dict[str, list[ImageId]]:
        """What was taken down, by image shard, in order of id, whether its tables still hold it or not."""
        return self._standing().taken_down

    def deny(self, images: Collection[ImageId], reason: str) -> Mapping[str, list[ImageId]]:
        """Take images down; gives the image shards that hold them, with their ids, also of those taken down before.

        ``images`` may be any: one that nobody has registered will not be.
        """

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            standing = RegistryState(self._stage_outputs, 0, entries)
            fresh = sorted(set(images) - standing.denied)
            if not fresh:
                return None
            image_index, shards = self._known(standing.shards), dict[str, list[ImageId]]()
            for image in fresh:
                if (shard := image_index.get(image)) is not None:
                    shards.setdefault(shard, []).append(image)
            return {"kind": "takedown", "images": fresh, "homes": shards, "reason": reason, "at": time.time()}

        self._log.append_if(decide)
        asked = set(images)
        concerned = {shard: sorted(asked & set(ids)) for shard, ids in self._as_read().taken_down.items()}
        return {shard: ids for shard, ids in concerned.items() if ids}

    def redact(self) -> list[str]:
        """Make the registry name no table that holds an image that was taken down; the keys of those that it named.

        Claims of it become rejects of their scans, and image shards' images are written again without: an image shard
        keeps its name and the fingerprint of what came out when it was cut, so no key changes. The tables themselves
        are the caller's to delete: their keys are kept in the log, so that one who goes on with a take-down is given
        them again.
        """
        while True:
            standing = self._standing()
            if not standing.denied:
                return []
            rewriting = Redaction(self._store, standing)
            if not self._rewrite([rewriting.entry(entry) for entry in self._log.known()], rewriting.replaced):
                return self._replaced()

    def upgrade(self) -> bool:
        """Bring a registry of layout 1, whose scans have one table of claims each, to this layout; whether it was one.

        Image shards and what came out of them stay what they are, so that nothing is computed or asked again.
        """
        changed = False
        while True:
            self._log.read()
            upgrading = RegistryUpgrade(self._store, self._log.known())
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
        scan = read_scan(body)
        refs = [scan.claims.parts, scan.rejects, *([scan.files] if scan.files else [])]
        parts = self._stage_outputs.stream(scan.claims.parts, ClaimPart)
        return (
            {ref.key for ref in refs} | {part.key for part in parts} | {raw["images"]["key"] for raw in body["homes"]}
        )
