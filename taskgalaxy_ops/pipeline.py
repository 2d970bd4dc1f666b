"""The chain of stages: ingest, embed, match, then filter, write and vote home by home.

Each step computes the shards whose keys do not exist yet; running it again on unchanged inputs asks no model and
encodes nothing. What Airflow's tasks and the command line call is here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from taskgalaxy_ops import awaiting
from taskgalaxy_ops.awaiting import Waiting
from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.erasing import erase_from_home
from taskgalaxy_ops.errors import SourceError, TaskGalaxyError
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.generation import HomeResult, HomeRun, Run
from taskgalaxy_ops.matching import EmbeddingMatrix, match
from taskgalaxy_ops.models.chat import Gateway, Usage
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.models.shares import Shares
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import FileReject, ImageId, Match, Reason
from taskgalaxy_ops.settings import SourceSettings, valid_name
from taskgalaxy_ops.sources.files import Listing, source_files
from taskgalaxy_ops.sources.ingest import scan
from taskgalaxy_ops.stage_keys import StageKeys
from taskgalaxy_ops.storage import digests, keys
from taskgalaxy_ops.storage.registry import Home
from taskgalaxy_ops.storage.rows import embeddings_hash, rows_hash
from taskgalaxy_ops.storage.scanned import Scanned
from taskgalaxy_ops.storage.shards import Key, Shard, Stats, embedding_table, table

_ENCODE_BATCH = 64  # decoded images in memory at a time


@dataclass(frozen=True, slots=True)
class IngestReceipt:
    """What a scan of a source came to: files = images + rejects."""

    source: str
    files: int
    images: int
    new_images: int
    new_shards: int
    rejects: Sequence[FileReject]


def ingest(
    galaxy: Galaxy,
    source: str,
    *,
    chosen: SourceSettings | None = None,
    pick: Callable[[str], bool] | None = None,
    progress: Progress | None = None,
) -> IngestReceipt:
    """Scan one source and register what it holds; ``pick`` chooses among its files, by name.

    Where it lies: as ``chosen`` says, else the settings, else its last scan. A file that is, by its listing, what the
    last scan found is not read again. Raises SourceError if the source is unknown, cannot be read, or, scanned whole,
    holds no usable image.
    """
    progress = progress or Silent()
    if not valid_name(source):
        raise SourceError(f"source {source!r}: no name for a source. Use 1 to 100 characters, none of them a slash.")
    chosen = chosen or source_settings(galaxy, source)
    registry, settings = galaxy.registry, galaxy.settings.ingest
    with source_files(source, chosen, galaxy.s3_options) as files, Scanned(source) as found:
        if pick:
            files.keep(pick)
        progress.stage(f"ingest {source}", len(files), "files")
        if pick is None and (before := _as_before(galaxy, source, chosen, files)):
            progress.advance(f"ingest {source}", len(files), rejects=len(before.rejects))
            return before
        found.remember(*registry.last_scan(source))
        scan(
            files,
            found,
            registry.known(),
            registry.denied(),
            settings,
            lambda image, raw: _keep_blob(galaxy, image, raw),
            lambda rejected: progress.advance(f"ingest {source}", rejects=int(rejected)),
        )
        if not found.claims and pick is None:  # of a few picked ones all may be broken
            reasons = Counter(reject.reason for reject in found.file_rejects())
            named = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
            raise SourceError(f"source {source!r}: none of its {len(files)} files is a usable image ({named}).")
        homes = registry.register(
            chosen.location,
            found,
            settings.shard_images,
            _looked_for(chosen),
            files.versions(),
        )
        denied = registry.denied()
        taken = found.among(denied)
        for _, image in taken:
            galaxy.store.delete(keys.blob(image))  # taken down while it was scanned, or left by a scan that was killed
        rejects = list(found.file_rejects(denied))
        return IngestReceipt(source, len(files), found.claims - len(taken), found.images, len(homes), rejects)


_BY_SETTINGS = {Reason.TOO_MANY_PIXELS, Reason.TOO_SMALL, Reason.UNREADABLE}  # rejects that another look may let pass


def _as_before(galaxy: Galaxy, source: str, chosen: SourceSettings, files: Listing) -> IngestReceipt | None:
    """The receipt of a scan that would find what the last one did, by the listing alone; None where it may not."""
    registry = galaxy.registry
    scan = registry.scans().get(source)
    if scan is None or scan.files is None or (scan.location, scan.settings) != (chosen.location, _looked_for(chosen)):
        return None
    if rows_hash(files.versions()) != scan.files.rows_hash or not all(each.version for each in files.versions()):
        return None
    rejects = list(registry.rejects(source))
    if not _BY_SETTINGS.isdisjoint(reject.reason for reject in rejects):
        return None
    return IngestReceipt(source, len(files), len(files) - len(rejects), 0, 0, rejects)


def _looked_for(chosen: SourceSettings) -> dict[str, Any]:
    """How a source is looked for, as a scan keeps it."""
    return chosen.model_dump(mode="json", exclude={"location"}, exclude_defaults=True)


def source_settings(galaxy: Galaxy, source: str) -> SourceSettings:
    """Where a source lies: as the settings say, else as its last scan did. Raises SourceError if neither knows it."""
    if source in galaxy.settings.sources:
        return galaxy.settings.sources[source]
    scans = galaxy.registry.scans()
    if source in scans:
        return SourceSettings(location=scans[source].location, **scans[source].settings)
    names = ", ".join(sorted({*galaxy.settings.sources, *scans})) or "none"
    raise SourceError(f"source {source!r}: not in the settings (there: {names}). Add it under `sources`.")


def _keep_blob(galaxy: Galaxy, image: str, raw: bytes) -> None:
    galaxy.store.replace(keys.blob(image), raw)  # also where it lies already: young again, it is no garbage


Committed = Mapping[tuple[str, str], Shard]  # by stage and key, as Shards.committed lists them


def embed(
    galaxy: Galaxy, homes: Sequence[Home], committed: Mapping[str, Committed], progress: Progress | None = None
) -> dict[str, Shard]:
    """Embedding shards of these homes, by home; encodes what has none. Raises EncoderError.

    committed: the shards that each home has.
    """
    progress = progress or Silent()
    progress.stage("embed", len(homes), "shards")
    found: dict[str, Shard] = {}
    stage_keys = StageKeys(galaxy)
    for home in homes:
        key = stage_keys.embed(home)
        shard = committed[home.home].get(("embed", str(key.key)))
        if shard is None:
            shard = _embed_home(galaxy, home, key)
        found[home.home] = shard
        progress.advance("embed")
    return found


def _embed_home(galaxy: Galaxy, home: Home, key: Key) -> Shard:
    encoder, began = galaxy.checked_encoder(), time.monotonic()
    denied = galaxy.registry.denied()  # their files are gone, perhaps before the table of images is written again
    ids = [image for image in galaxy.registry.image_ids(home) if image not in denied]
    parts = []
    for at in range(0, len(ids), _ENCODE_BATCH):
        batch = ids[at : at + _ENCODE_BATCH]
        parts.append(encoder.encode_images([upright(galaxy.store.get(keys.blob(image))) for image in batch]))
    content = embedding_table(ids, np.concatenate(parts))
    stats = Stats(len(ids), len(ids), seconds=round(time.monotonic() - began, 3))
    return galaxy.shards.commit(home.home, "embed", str(key.key), {"embeddings": content}, stats, key.made_of)


def match_homes(
    galaxy: Galaxy,
    homes: Sequence[Home],
    committed: Mapping[str, Committed],
    progress: Progress | None = None,
    taxonomy: int | None = None,
) -> dict[str, Shard]:
    """Match shards of these homes against the leaves of a taxonomy version, by default the newest, by home.

    committed: the shards that each home has.
    """
    progress = progress or Silent()
    embedded = embed(galaxy, homes, committed, progress)
    types = Catalogue(galaxy).embeddings(taxonomy)
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = galaxy.registry.dead_hashes()
    stage_keys = StageKeys(galaxy)
    progress.stage("match", len(homes), "shards")
    found: dict[str, Shard] = {}
    for home in homes:
        began = time.monotonic()
        key = stage_keys.match(embedded[home.home].output, types_hash, dead.get(home.home))
        shard = committed[home.home].get(("match", str(key.key)))
        if shard is None:
            gone = galaxy.registry.dead(home) if home.home in dead else []
            rows = match_home(galaxy, embedded[home.home], types, gone)
            stats = Stats(home.images.rows, len(rows), seconds=round(time.monotonic() - began, 3))
            tables = {"matches": table(rows, Match)}
            shard = galaxy.shards.commit(home.home, "match", str(key.key), tables, stats, key.made_of)
        found[home.home] = shard
        progress.advance("match")
    return found


def match_home(galaxy: Galaxy, embedded: Shard, types: EmbeddingMatrix, dead: Collection[ImageId]) -> list[Match]:
    """The matches of a home's images, but for the ``dead`` ones."""
    ids, vectors = galaxy.shards.load_embeddings(embedded)
    gone = set(dead)
    keep = [row for row, image in enumerate(ids) if image not in gone]
    images = EmbeddingMatrix(tuple(ids[row] for row in keep), vectors[keep])
    return list(match(images, types, k=galaxy.settings.match.k))


@dataclass(slots=True)
class RunResult:
    """What filter, write and vote came to over all homes of a run."""

    homes: list[HomeResult] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    matches: dict[str, Shard] = field(default_factory=dict)

    @property
    def held(self) -> str:
        """Why a home could not be asked about for now, since another run asks for it; "" if none was."""
        return next((home.stopped for home in self.homes if home.held), "")

    @property
    def unaffordable(self) -> bool:
        """Whether asking ended at a cap of the budget."""
        return any(home.spent for home in self.homes)

    @property
    def pending(self) -> int:
        return sum(home.pending for home in self.homes)

    @property
    def waiting(self) -> list[Waiting]:
        """Batches that another run, once one has ended, would collect and go on from."""
        homes = [home for home in self.homes if home.pending and not home.held]
        return awaiting.watched([batch for home in homes for batch in home.waiting], self.usage)

    @property
    def reasons(self) -> list[str]:
        """Why something is pending, each reason once."""
        found = [home.stopped for home in self.homes if home.stopped] + list(self.usage.unavailable.values())
        found += awaiting.told([batch for home in self.homes if home.pending for batch in home.waiting])
        found += [] if found else self.usage.gave_up.values()
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Lane:
    """One of ``of`` groups of about equally many images. The registry's number makes it the same group each time."""

    number: int  # from 0
    of: int
    registry: int  # number of the registry's entry up to which homes are dealt
    sources: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """As JSON: numbers and names, whatever the number of images."""
        return {**asdict(self), "sources": list(self.sources)}


def lanes(galaxy: Galaxy, sources: Sequence[str], count: int) -> list[Lane]:
    """At most ``count`` lanes for these sources, none of them empty. Raises SourceError."""
    registry = galaxy.registry.last()
    homes = len(homes_of(galaxy, sources, registry))
    return [Lane(number, min(count, homes), registry, tuple(sources)) for number in range(min(count, homes))]


def homes_of_lane(galaxy: Galaxy, lane: Lane) -> list[Home]:
    """A lane's homes: dealt by size, so that lanes take about equally long; in order of id."""
    homes = sorted(homes_of(galaxy, lane.sources, lane.registry), key=lambda home: (-home.cut, home.home))
    return sorted(homes[lane.number :: lane.of], key=lambda home: home.home)


def homes_of(galaxy: Galaxy, sources: Sequence[str] | None, until: int | None = None) -> list[Home]:
    """The whole homes that these sources' images live in; None: those of all live sources. Raises SourceError.

    until: as the registry stood at that number.
    """
    scans = galaxy.registry.scans(until)
    for name in sources or ():
        if name not in scans:
            there = ", ".join(scans) or "none"
            raise SourceError(f"source {name!r}: not ingested (there: {there}). Run `taskgalaxy ingest` first.")
    return galaxy.registry.homes_of(sources, until)


def generate(
    galaxy: Galaxy,
    *,
    sources: Sequence[str] | None = None,
    lane: Lane | None = None,
    last_stage: str = "vote",
    ask: bool = True,
    commit: bool = True,
    taxonomy: int | None = None,
    only: Mapping[str, Collection[ImageId]] | None = None,
    progress: Progress | None = None,
    wait: bool = True,
) -> RunResult:
    """Match, filter, write and vote, for all sources, some, or a lane. Answers that exist are used, others asked for.

    ``ask`` False: only the journal is read. ``commit`` False: filter, write and vote leave no shard. What could not be
    answered is pending: ``reasons`` says why. ``taxonomy``: a version, by default the newest. ``only``: by home, the
    images that are asked about. ``wait``: for batches, as long as the settings say. Raises TaskGalaxyError for the
    first home that failed, once the homes that were under way have ended: what they have sent is paid for.
    """
    progress = progress or Silent()
    if ask:
        galaxy.publish_settings()
    denied = galaxy.registry.denied()
    homes = homes_of_lane(galaxy, lane) if lane else homes_of(galaxy, sources)
    homes = [home for home in galaxy.registry.with_claims(homes) if only is None or home.home in only]
    committed = {home.home: galaxy.shards.committed(home.home) for home in homes}  # a run lists each home once
    matches = match_homes(galaxy, homes, committed, progress, taxonomy)
    result = RunResult()
    try:
        if last_stage != "match":
            result = asyncio.run(
                _run_homes(galaxy, matches, committed, last_stage, ask, commit, denied, progress, only=only, wait=wait)
            )
    finally:
        _erase_late(galaxy, denied, matches)
        if galaxy.shards.written:
            digests.add(galaxy.store, galaxy.shards.written)
    result.matches = matches
    return result


def _erase_late(galaxy: Galaxy, denied: Collection[ImageId], homes: Iterable[str]) -> None:
    """Erase what was written of images that were taken down while these homes were at work."""
    if late := galaxy.registry.denied().difference(denied):
        taken_down = galaxy.registry.taken_down()
        for home in homes:
            if gone := late.intersection(taken_down.get(home, ())):
                erase_from_home(galaxy, home, gone)


def look_through(
    galaxy: Galaxy,
    matches: Mapping[str, Shard],
    committed: Mapping[str, Committed],
    computed: Mapping[str, Sequence[Match]],
) -> RunResult:
    """What filter, write and vote of these homes come to with the answers that are there; asks and writes nothing.

    ``matches``: match shards by home; ``computed``: the rows of those that are not committed. ``committed``: the shards
    that each home has.
    """
    return asyncio.run(_run_homes(galaxy, matches, committed, "vote", False, False, (), Silent(), computed))


async def _run_homes(
    galaxy: Galaxy,
    matches: Mapping[str, Shard],
    committed: Mapping[str, Committed],
    last_stage: str,
    ask: bool,
    commit: bool,
    denied: Collection[ImageId],
    progress: Progress,
    computed: Mapping[str, Sequence[Match]] | None = None,
    only: Mapping[str, Collection[ImageId]] | None = None,
    wait: bool = False,
) -> RunResult:
    gateway = Gateway(Shares(galaxy.store, progress.note))
    result = RunResult(usage=gateway.usage)

    def told(stage: str, units: int) -> None:
        progress.advance("generate", 0, **{f"{stage} units": units})
        progress.usage("generate", gateway.usage)

    run = Run(
        galaxy,
        StageKeys(galaxy),
        gateway if ask else None,
        galaxy.till(),
        galaxy.edits().counts(),
        commit,
        last_stage,
        told,
        only,
    )
    progress.stage("generate", len(matches), "shards")
    slots = asyncio.Semaphore(galaxy.settings.run.homes_at_once)
    failed: list[TaskGalaxyError] = []
    looking = asyncio.Lock()
    batch = galaxy.settings.run.batch
    by = awaiting.deadline(batch) if wait and ask else 0.0

    async def once(home: str, shard: Shard, there: Committed) -> HomeResult | None:
        async with slots:
            if failed:
                return None
            try:
                outcome = await HomeRun(run, home, shard, there, (computed or {}).get(home))()
            except TaskGalaxyError as error:
                progress.note(f"{error} The shards under way are ended first.")
                failed.append(error)
                return None
            if outcome.wrote:
                async with looking:
                    await asyncio.to_thread(_erase_late, galaxy, denied, [home])
            return outcome

    async def one(home: str, shard: Shard) -> None:
        outcome = await once(home, shard, committed[home])
        while outcome and outcome.pending and not outcome.held and not failed:
            if not await awaiting.until_one_ends(gateway, outcome.waiting, batch, by):
                break
            outcome = await once(home, shard, await asyncio.to_thread(galaxy.shards.committed, home))
        if outcome is None:
            return
        result.homes.append(outcome)
        counted = [stage.counts for stage in outcome.stages.values() if stage.counts]
        rejects = sum(sum(counts.rejects.values()) for counts in counted)
        progress.advance("generate", rejects=rejects, pending=outcome.pending)

    try:
        async with asyncio.TaskGroup() as group:
            for home, shard in matches.items():
                group.create_task(one(home, shard))
    finally:
        await gateway.aclose()
    if failed:
        raise failed[0]
    if gateway.usage.requests:
        run.till.ledger.fold()
    result.homes.sort(key=lambda home: home.home)
    return result
