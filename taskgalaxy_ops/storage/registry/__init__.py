"""The registry: a log of scans and removals of sources. It decides which image shard an image belongs to.

An entry is ``{"kind": "scan", "source", "location", "settings", "files", "claims", "rejects", "left_out", "pages",
"homes"}``, whose tables are content-named Parquet, or ``{"kind": "remove", "source"}``. A scan replaces its source's
claims. ``left_out`` counts by kind what the scan passed by; ``pages`` names the files of several pages. ``homes`` lists
the image shards that this scan cut; an image belongs for good to the shard in which it was first registered. ``claims``
names a table of parts. Each part is a table of the source's claims of one shard's images, so that a reader of one shard
reads no other shard's claims, and a scan writes only the parts that changed.

``{"kind": "takedown", "images", "homes", "reason", "at"}`` denies images: from then on nobody claims them, and files
that hold them are rejects. ``homes`` maps the image shards that held them to their ids, so that the registry knows what
was taken down in a shard after its tables were rewritten. ``{"kind": "rewrite", "keys"}`` names tables that were
replaced by others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.hashing import canonical_json, fingerprint, sha256_hex
from taskgalaxy_ops.records import Claim, FilePages, FileReject, FileVersion, Image, ImageId
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
        self._seen: RegistryState | None = None  # the last state, with the tables that it has read

    def last(self) -> int:
        """The number of the newest entry now. It names the registry's current state."""
        self._log.read()
        return self._log.last

    def _state(self, until: int | None = None) -> RegistryState:
        """The registry's state now, or after the entry ``until``."""
        entries = [entry for entry in self._log.read() if until is None or entry.number <= until]
        number = self._log.last if until is None else min(until, self._log.last)
        return self._remembered(RegistryState(self._stage_outputs, number, entries))

    def _last_state(self) -> RegistryState:
        """The registry's state as of the last read. Reads the log only if it was never read."""
        if self._log.last == 0:
            return self._state()
        return self._remembered(RegistryState(self._stage_outputs, self._log.last, self._log.known()))

    def _remembered(self, state: RegistryState) -> RegistryState:
        """The same state, as the object that has read its tables before, if there is one."""
        if self._seen is None or self._seen != state:
            self._seen = state
        return self._seen

    def scans(self, until: int | None = None) -> dict[str, Scan]:
        """The last scan of each live source, by source; ``until``: the state after that entry."""
        return self._state(until).scans

    def scan_age(self, source: str) -> float | None:
        """Seconds since a source's last scan that found something new was registered; None where that is not known."""
        numbers = [
            entry.number
            for entry in self._log.read()
            if entry.body["kind"] == "scan" and entry.body["source"] == source
        ]
        return self._log.age(numbers[-1]) if numbers else None

    def shards(self, until: int | None = None) -> list[ImageShard]:
        """Every image shard, in order of id; ``until``: the state after that entry."""
        return self._state(until).shards

    def origins(self) -> dict[str, str]:
        """By image shard: the source whose scan cut it, live or not. Calls about its images count for that source."""
        return self._state().origins

    def shards_of(self, sources: Collection[str] | None = None, until: int | None = None) -> list[ImageShard]:
        """The image shards that hold images of these live sources, in order of id; None: of all live sources."""
        state = self._state(until)
        wanted = {
            part.home for source, parts in state.parts.items() if sources is None or source in sources for part in parts
        }
        return [shard for shard in state.shards if shard.id in wanted]

    def with_claims(self, shards: Iterable[ImageShard]) -> list[ImageShard]:
        """These image shards without those that have nothing to do, as of the last read of the registry.

        A shard is left out if no live source claims an image of it, or if all of its images were taken down. Lanes
        still count such shards, so that every shard keeps its lane.
        """
        state = self._last_state()
        return [
            shard
            for shard in shards
            if any(part.rows for part in state.parts_of(shard.id))
            and shard.cut > len(state.taken_down.get(shard.id, ()))
        ]

    def claims(self, until: int | None = None) -> Iterator[Claim]:
        """The claims of all live sources, ordered by source, image shard and image; ``until``: after that entry.

        Claims of images that were taken down are left out, also those that were taken down after ``until``.
        """
        state, denied = self._state(until), self.denied()
        for parts in state.parts.values():
            for part in parts:
                yield from self._claims(part, denied)

    def claims_of(self, shard: str) -> list[Claim]:
        """The claims of an image shard's images, ordered by image and source, as of the last read of the registry.

        Reads one table a source and not the log, since callers call it for one shard after another.
        """
        state = self._last_state()
        claims = [claim for part in state.parts_of(shard) for claim in self._claims(part, state.denied)]
        return sorted(claims, key=lambda claim: (claim.image, claim.source, claim.file))

    def _claims(self, part: ClaimPart, denied: Collection[ImageId]) -> Iterator[Claim]:
        return (claim for claim in self._stage_outputs.stream(part.table, Claim) if claim.image not in denied)

    def claim_parts(self) -> list[ClaimPart]:
        """The parts of all live sources' claims. They may still hold claims of images that were taken down since."""
        return [part for parts in self._state().parts.values() for part in parts]

    def last_scan(self, source: str) -> tuple[Iterable[FileVersion], Iterable[Claim]]:
        """The files and the claims of a source's last scan; both empty if the scan kept no listing or there is none."""
        state = self._state()
        scan = state.scans.get(source)
        if scan is None or scan.files is None:
            return (), ()
        claims = (claim for part in state.parts[source] for claim in self._claims(part, state.denied))
        return self._stage_outputs.stream(scan.files, FileVersion), claims

    def pages(self, source: str) -> Iterable[FilePages]:
        """The files of several pages or frames that a source's last scan found."""
        scan = self._state().scans.get(source)
        return self._stage_outputs.stream(scan.pages, FilePages) if scan and scan.pages else ()

    def rejects(self, source: str | None = None) -> Iterator[FileReject]:
        """The files that live sources' last scans rejected, and files taken down since, ordered by source and file.

        ``source``: of this source alone; None: of all.
        """
        state = self._state()
        for name, scan in state.scans.items():
            if source is None or name == source:
                taken = [
                    taken_down_reject(claim)
                    for part in state.parts[name]
                    if part.home in state.taken_down
                    for claim in self._stage_outputs.stream(part.table, Claim)
                    if claim.image in state.denied
                ]
                yield from merged_by_file(self._stage_outputs.stream(scan.rejects, FileReject), taken)

    def images(self, shard: ImageShard) -> list[Image]:
        """An image shard's images, ordered by id."""
        return self._stage_outputs.read(shard.images, Image)

    def image_ids(self, shard: ImageShard) -> list[ImageId]:
        """The ids of an image shard's images, in order. Decodes no other column of the table."""
        return self._stage_outputs.column(shard.images, "image")

    def image_index(self) -> dict[ImageId, Image]:
        """Every image that has an image shard, by id. Reads one table a shard and holds all rows in memory."""
        return {image.image: image for shard in self.shards() for image in self.images(shard)}

    def known(self) -> ImageIndex:
        """The image shard of every image, in 20 bytes an image. Reads one column of each shard, once."""
        return self._known(self.shards())

    def _known(self, shards: Iterable[ImageShard]) -> ImageIndex:
        indexed = set(self._image_index.shards)
        self._image_index.extend((shard.id, self.image_ids(shard)) for shard in shards if shard.id not in indexed)
        return self._image_index

    # Dead images: claimed by nobody, or taken down

    def dead(self, shard: ImageShard) -> list[ImageId]:
        """An image shard's dead images, in order of id: those that no live source claims, or that were taken down.

        As of the last read of the registry.
        """
        state = self._last_state()
        dead = {*self.image_ids(shard), *state.taken_down.get(shard.id, ())}
        for part in state.parts_of(shard.id):
            dead.difference_update(set(self._stage_outputs.column(part.table, "image")) - state.denied)
        return sorted(dead)

    def dead_hashes(self) -> dict[str, str]:
        """By image shard that a live source refers to: the SHA-256 of its dead images' ids, if it has any.

        A shard in which nothing was taken down, and of which one source claims as many images as it has, is known to
        have none without reading a table, because a source claims an image only once. The result of reading the other
        shards' tables is cached under the registry's number for the next run.
        """
        state = self._state()
        doubtful = [shard for shard in state.shards if not state.wholly_claimed(shard)]
        if not doubtful:
            return {}
        key = keys.cache(f"registry-{state.number}")
        try:
            hashes: dict[str, str] = json.loads(self._store.get(key))
        except (NotFoundError, ValueError):
            dead = ((shard.id, self.dead(shard)) for shard in doubtful)
            hashes = {shard: sha256_hex(canonical_json(ids)) for shard, ids in dead if ids}
            keep(self._store, key, canonical_json(hashes))
        return hashes

    # Scans and removals

    def register(
        self,
        location: str,
        found: ScanStaging,
        shard_images: int,
        settings: Mapping[str, Any] | None = None,
        files: Iterable[FileVersion] = (),
        left_out: Mapping[str, int] | None = None,
    ) -> list[ImageShard]:
        """Replace the source's claims by this scan's, cut its new images into image shards, and return these shards.

        Appends nothing if the scan found what the last one did. ``found``: the scan's results, with a record of every
        claimed image that has no shard yet. ``shard_images``: images a shard. ``settings`` and ``files``: how the
        source was listed and what was listed, which the next scan compares.
        ``left_out``: what the scan passed by, by kind. Images that were taken down, before or
        during the scan, become rejects and get no shard.
        """
        draft = TableDraft(self._store)
        listing, pages = table(files, FileVersion), table(found.pages(), FilePages)
        cut: list[ImageShard] = []
        abandoned: dict[str, ImageShard] = {}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal cut
            standing = RegistryState(self._stage_outputs, 0, entries)
            abandoned.update({shard.id: shard for shard in cut})
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
                left_out=left_out,
                pages=draft.put("pages", pages, last.pages if last else None) if pages.rows else None,
            )
            if scan == last and not cut:
                return None
            return {"kind": "scan", **scan.to_json(), "homes": [shard.to_json() for shard in cut]}

        entry = self._log.append_if(decide)
        draft.drop_all_but(self._named(entry.body) if entry else set())
        self._forget(abandoned.values())
        return cut

    def _cut(
        self,
        found: ScanStaging,
        image_index: ImageIndex,
        denied: Collection[ImageId],
        shard_images: int,
        cut: list[ImageShard],
    ) -> Iterator[tuple[str, list[ImageId]]]:
        """Cut the new images into image shards, in order of image; commit each shard and append it to ``cut``.

        Yields each shard's id with its images' ids.
        """
        images = (image for image in found.new_images() if image.image not in denied and image.image not in image_index)
        while part := list(islice(images, shard_images)):
            ids = [image.image for image in part]
            shard = fingerprint("home", ids)[:32]
            content = table(part, Image)
            stage_output = self._stage_outputs.commit(
                shard, INGEST, shard, {"images": content}, Stats(len(part), len(part))
            )
            ref = self._stage_outputs.refs(stage_output)["images"]
            cut.append(ImageShard.formed(shard, ref, stage_output.output, referred=found.by_reference))
            yield shard, ids

    def _forget(self, abandoned: Iterable[ImageShard]) -> None:
        """Delete shards that were cut but not registered, because an image of theirs was taken down meanwhile.

        Other unregistered shards stay: a racing writer may be about to register the same shard.
        """
        state = self._last_state()
        shards = {shard.id for shard in state.shards}
        for shard in abandoned:
            if shard.id not in shards and not state.denied.isdisjoint(self.image_ids(shard)):
                self._store.delete(shard.stage_output().marker)
                self._store.delete(shard.images.key)

    def remove(self, source: str) -> bool:
        """Remove a source's claims; False if it has none. Its images then need another source's claims."""
        entry = self._log.append_if(
            lambda entries: {"kind": "remove", "source": source} if source in read_scans(entries) else None
        )
        return entry is not None

    # Take-downs

    def denied(self, until: int | None = None) -> frozenset[ImageId]:
        """The images that were taken down; ``until``: the state after that entry."""
        return self._state(until).denied

    def taken_down(self) -> dict[str, list[ImageId]]:
        """The ids that were taken down, by image shard, in order, whether its tables still hold them or not."""
        return self._state().taken_down

    def deny(self, images: Collection[ImageId], reason: str) -> Mapping[str, list[ImageId]]:
        """Take images down; returns by image shard the ids that it holds, also of images taken down before.

        ``images`` may hold any ids: an image that is not registered yet never will be.
        """

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            state = RegistryState(self._stage_outputs, 0, entries)
            fresh = sorted(set(images) - state.denied)
            if not fresh:
                return None
            image_index, shards = self._known(state.shards), dict[str, list[ImageId]]()
            for image in fresh:
                if (shard := image_index.get(image)) is not None:
                    shards.setdefault(shard, []).append(image)
            return {"kind": "takedown", "images": fresh, "homes": shards, "reason": reason, "at": time.time()}

        self._log.append_if(decide)
        wanted = set(images)
        concerned = {shard: sorted(wanted & set(ids)) for shard, ids in self._last_state().taken_down.items()}
        return {shard: ids for shard, ids in concerned.items() if ids}

    def redact(self) -> list[str]:
        """Rewrite the tables that hold images that were taken down; returns the keys of the replaced tables.

        Claims of such images become rejects of their scans, and shards' tables of images are written again without
        them. A shard keeps its id and the fingerprint of what ingest put out when it was cut, so no key changes. The
        caller deletes the replaced tables. Their keys stay in the log, so that a take-down that was interrupted gets
        them again.
        """
        while True:
            state = self._state()
            if not state.denied:
                return []
            redaction = Redaction(self._store, state)
            if not self._rewrite([redaction.entry(entry) for entry in self._log.known()], redaction.replaced):
                return self._replaced()

    def upgrade(self) -> bool:
        """Bring a registry of layout 1, whose scans have one table of claims each, to this layout; False if it is not.

        Image shards and their fingerprints stay the same, so that no stage runs again.
        """
        changed = False
        while True:
            self._log.read()
            upgrading = RegistryUpgrade(self._store, self._log.known())
            if not self._rewrite([upgrading.entry(entry) for entry in self._log.known()], upgrading.replaced):
                break
            changed = True
        for key in self._replaced():  # no entry names them, so that a take-down would not find them
            self._store.delete(key)
        return changed

    def _rewrite(self, entries: Iterable[LogEntry], replaced: Collection[str]) -> bool:
        """Compact the log to these entries, if they name new tables; False if nothing was replaced.

        Another writer's compaction may come first, or restore entries that it read before: the caller checks again.
        """
        changed = {entry.number: entry for entry in entries}
        if not replaced:
            return False
        self._log.append({"kind": "rewrite", "keys": sorted(replaced)})
        self._log.compact(lambda entries: [changed.get(entry.number, entry) for entry in entries])
        self._seen = None
        return True

    def _replaced(self) -> list[str]:
        """The keys of replaced tables that no entry names any more; another scan may still name a replaced one."""
        rewrites = (entry.body for entry in self._log.known() if entry.body["kind"] == "rewrite")
        replaced = {key for body in rewrites for key in body["keys"]}
        return sorted(replaced - self.named())

    # The tables that entries name

    def tables(self) -> Iterator[tuple[TableRef, type[Any]]]:
        """The tables that live sources' scans name, each with the record of its rows."""
        state = self._state()
        for name, scan in state.scans.items():
            yield scan.claims.parts, ClaimPart
            for part in state.parts[name]:
                yield part.table, Claim
            yield scan.rejects, FileReject
            if scan.files is not None:
                yield scan.files, FileVersion
            if scan.pages is not None:
                yield scan.pages, FilePages

    def named(self) -> set[str]:
        """The keys of all tables that an entry names, also of superseded scans, whose tables lanes may still read."""
        entries = self._log.read()
        return {key for entry in entries if entry.body["kind"] == "scan" for key in self._named(entry.body)}

    def _named(self, body: Mapping[str, Any]) -> set[str]:
        scan = read_scan(body)
        parts = self._stage_outputs.stream(scan.claims.parts, ClaimPart)
        return (
            {ref.key for ref in scan.tables}
            | {part.key for part in parts}
            | {raw["images"]["key"] for raw in body["homes"]}
        )
