"""A run: match, then filter, write and vote, image shard by image shard, some of them at once.

A second run on unchanged inputs asks no model and encodes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.generation.embed import Committed
from taskgalaxy_ops.generation.erase import erase_from_home
from taskgalaxy_ops.generation.lanes import Lane, homes_of, homes_of_lane
from taskgalaxy_ops.generation.match_run import match_homes
from taskgalaxy_ops.generation.shard_run import HomeResult, HomeRun, Run
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.inference.batch_wait import Waiting
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage import marker_index
from taskgalaxy_ops.storage.shards import Shard
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Galaxy


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
        return batch_wait.watched([batch for home in homes for batch in home.waiting], self.usage)

    @property
    def reasons(self) -> list[str]:
        """Why something is pending, each reason once."""
        found = [home.stopped for home in self.homes if home.stopped] + list(self.usage.unavailable.values())
        found += batch_wait.told([batch for home in self.homes if home.pending for batch in home.waiting])
        found += [] if found else self.usage.gave_up.values()
        return list(dict.fromkeys(found))


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
            marker_index.add(galaxy.store, galaxy.shards.written)
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
    by = batch_wait.deadline(batch) if wait and ask else 0.0

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
            if not await batch_wait.until_one_ends(gateway, outcome.waiting, batch, by):
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
