"""The chain of stages: ingest, embed, match, then filter, write and vote home by home.

Each step computes the shards whose keys do not exist yet; running it again on unchanged inputs asks no model and
encodes nothing. What Airflow's tasks and the command line call is here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.errors import SourceError, TaskGalaxyError
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.generation import HomeResult, HomeRun, Run
from taskgalaxy_ops.matching import EmbeddingMatrix, match
from taskgalaxy_ops.models.chat import Gateway, Usage
from taskgalaxy_ops.models.purse import Till
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import FileReject, FileVersion, ImageId, Match
from taskgalaxy_ops.settings import SourceSettings, valid_name
from taskgalaxy_ops.sources.files import SourceFile, source_files
from taskgalaxy_ops.sources.ingest import scan
from taskgalaxy_ops.stage_keys import StageKeys
from taskgalaxy_ops.storage import digests, keys
from taskgalaxy_ops.storage.registry import Home
from taskgalaxy_ops.storage.rows import embeddings_hash
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
    pick: Callable[[list[SourceFile]], list[SourceFile]] | None = None,
    progress: Progress | None = None,
) -> IngestReceipt:
    """Scan one source and register what it holds; ``pick`` chooses among its files.

    Where it lies: as ``chosen`` says, else the settings, else its last scan. A file that is, by its listing, what the
    last scan found is not read again. Raises SourceError if the source is unknown, cannot be read, or, scanned whole,
    holds no usable image.
    """
    progress = progress or Silent()
    if not valid_name(source):
        raise SourceError(f"source {source!r}: no name for a source. Use 1 to 100 characters, none of them a slash.")
    chosen = chosen or source_settings(galaxy, source)
    files = list(source_files(source, chosen, galaxy.s3_options))
    files = pick(files) if pick else files
    listing = [FileVersion(file.name, file.version) for file in files]
    progress.stage(f"ingest {source}", len(files), "files")
    known = galaxy.registry.housed()
    rejected = 0

    def told(_: int, rejects: int) -> None:
        nonlocal rejected
        progress.advance(f"ingest {source}", rejects=rejects - rejected)
        rejected = rejects

    found = scan(
        source,
        files,
        known,
        galaxy.settings.ingest,
        lambda image, raw: _keep_blob(galaxy, image, raw),
        told,
        galaxy.registry.unchanged(source, listing),
    )
    if not found.claims and pick is None:  # of a few picked ones all may be broken
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(r.reason for r in found.rejects).items())
        raise SourceError(f"source {source!r}: none of its {len(files)} files is a usable image ({reasons}).")
    homes = galaxy.registry.register(
        source,
        chosen.location,
        found.images,
        found.claims,
        found.rejects,
        galaxy.settings.ingest.shard_images,
        chosen.model_dump(mode="json", exclude={"location"}, exclude_defaults=True),
        listing,
    )
    new = sum(image not in known for image in found.images)
    return IngestReceipt(source, len(files), len(found.claims), new, len(homes), found.rejects)


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
    galaxy.store.put_if_absent(keys.blob(image), raw)


def embed(galaxy: Galaxy, homes: Sequence[Home], progress: Progress | None = None) -> dict[str, Shard]:
    """Embedding shards of these homes, by home; encodes what has none. Raises EncoderError."""
    progress = progress or Silent()
    progress.stage("embed", len(homes), "shards")
    found: dict[str, Shard] = {}
    stage_keys = StageKeys(galaxy)
    for home in homes:
        key = stage_keys.embed(home)
        shard = galaxy.shards.committed(home.home).get(("embed", str(key.key)))
        if shard is None:
            shard = _embed_home(galaxy, home, key)
        found[home.home] = shard
        progress.advance("embed")
    return found


def _embed_home(galaxy: Galaxy, home: Home, key: Key) -> Shard:
    encoder, began = galaxy.checked_encoder(), time.monotonic()
    ids = [image.image for image in galaxy.registry.images(home)]
    parts = []
    for at in range(0, len(ids), _ENCODE_BATCH):
        batch = ids[at : at + _ENCODE_BATCH]
        parts.append(encoder.encode_images([upright(galaxy.store.get(keys.blob(image))) for image in batch]))
    content = embedding_table(ids, np.concatenate(parts))
    stats = Stats(len(ids), len(ids), seconds=round(time.monotonic() - began, 3))
    return galaxy.shards.commit(home.home, "embed", str(key.key), {"embeddings": content}, stats, key.made_of)


def match_homes(
    galaxy: Galaxy, homes: Sequence[Home], progress: Progress | None = None, taxonomy: int | None = None
) -> dict[str, Shard]:
    """Match shards of these homes against the leaves of a taxonomy version, by default the newest, by home."""
    progress = progress or Silent()
    embedded = embed(galaxy, homes, progress)
    types = Catalogue(galaxy).embeddings(taxonomy)
    types_hash = embeddings_hash(types.ids, types.vectors)
    live = {claim.image for claim in galaxy.registry.claims()}
    stage_keys = StageKeys(galaxy)
    progress.stage("match", len(homes), "shards")
    found: dict[str, Shard] = {}
    for home in homes:
        began = time.monotonic()
        dead = dead_images(galaxy, home, live)
        key = stage_keys.match(embedded[home.home].output, types_hash, dead)
        shard = galaxy.shards.committed(home.home).get(("match", str(key.key)))
        if shard is None:
            rows = match_home(galaxy, embedded[home.home], types, dead)
            stats = Stats(home.images.rows, len(rows), seconds=round(time.monotonic() - began, 3))
            tables = {"matches": table(rows, Match)}
            shard = galaxy.shards.commit(home.home, "match", str(key.key), tables, stats, key.made_of)
        found[home.home] = shard
        progress.advance("match")
    return found


def dead_images(galaxy: Galaxy, home: Home, live: Collection[ImageId]) -> list[ImageId]:
    """The images of a home that no source claims, in order of id. ``live``: all that are claimed."""
    return [image.image for image in galaxy.registry.images(home) if image.image not in live]


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
    def pending(self) -> int:
        return sum(home.pending for home in self.homes)

    @property
    def reasons(self) -> list[str]:
        """Why something is pending, each reason once."""
        found = [home.stopped for home in self.homes if home.stopped] + list(self.usage.unavailable.values())
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
    homes = sorted(homes_of(galaxy, lane.sources, lane.registry), key=lambda home: (-home.images.rows, home.home))
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
    wanted = {c.image for c in galaxy.registry.claims(until) if sources is None or c.source in sources}
    return [
        home
        for home in galaxy.registry.homes(until)
        if any(image.image in wanted for image in galaxy.registry.images(home))
    ]


def generate(
    galaxy: Galaxy,
    *,
    sources: Sequence[str] | None = None,
    lane: Lane | None = None,
    last_stage: str = "vote",
    ask: bool = True,
    commit: bool = True,
    taxonomy: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Match, filter, write and vote, for all sources, some, or a lane. Answers that exist are used, others asked for.

    ``ask`` False: only the journal is read. ``commit`` False: filter, write and vote leave no shard. What could not be
    answered is pending: ``reasons`` says why. ``taxonomy``: a version, by default the newest. Raises TaskGalaxyError
    for the first home that failed, once the homes that were under way have ended: what they have sent is paid for.
    """
    progress = progress or Silent()
    if ask:
        galaxy.publish_settings()
    homes = homes_of_lane(galaxy, lane) if lane else homes_of(galaxy, sources)
    matches = match_homes(galaxy, homes, progress, taxonomy)
    if last_stage == "match":
        return RunResult(matches=matches)
    try:
        result = asyncio.run(_run_homes(galaxy, matches, last_stage, ask, commit, progress))
    finally:
        if galaxy.shards.written:
            digests.add(galaxy.store, galaxy.shards.written)
    result.matches = matches
    return result


def look_through(galaxy: Galaxy, matches: Mapping[str, Shard], computed: Mapping[str, Sequence[Match]]) -> RunResult:
    """What filter, write and vote of these homes come to with the answers that are there; asks and writes nothing.

    ``matches``: match shards by home; ``computed``: the rows of those that are not committed.
    """
    return asyncio.run(_run_homes(galaxy, matches, "vote", False, False, Silent(), computed))


async def _run_homes(
    galaxy: Galaxy,
    matches: Mapping[str, Shard],
    last_stage: str,
    ask: bool,
    commit: bool,
    progress: Progress,
    computed: Mapping[str, Sequence[Match]] | None = None,
) -> RunResult:
    gateway = Gateway()
    result = RunResult(usage=gateway.usage)

    def told(stage: str, units: int) -> None:
        progress.advance("generate", 0, **{f"{stage} units": units})
        progress.usage("generate", gateway.usage)

    run = Run(
        galaxy,
        StageKeys(galaxy),
        gateway if ask else None,
        Till(galaxy.ledger()),
        galaxy.edits(),
        commit,
        last_stage,
        told,
    )
    progress.stage("generate", len(matches), "shards")
    slots = asyncio.Semaphore(galaxy.settings.run.homes_at_once)
    failed: list[TaskGalaxyError] = []

    async def one(home: str, shard: Shard) -> None:
        async with slots:
            if failed:
                return
            try:
                committed = await asyncio.to_thread(galaxy.shards.committed, home)
                outcome = await HomeRun(run, home, shard, committed, (computed or {}).get(home))()
            except TaskGalaxyError as error:
                progress.note(f"{error} The shards under way are ended first.")
                failed.append(error)
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
