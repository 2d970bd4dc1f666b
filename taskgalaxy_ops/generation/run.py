"""A run: match all image shards, then filter, write and vote for each of them, several at once.

A second run on unchanged inputs asks no model and encodes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.generation.embed import Committed
from taskgalaxy_ops.generation.erase import erase_from_shard
from taskgalaxy_ops.generation.lanes import Lane, shards_of, shards_of_lane
from taskgalaxy_ops.generation.match_run import match_shards
from taskgalaxy_ops.generation.shard_run import Run, ShardResult, ShardRun
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.inference.batch_wait import PendingBatch
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage import marker_index
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class RunResult:
    """The outcome of a run: the results of its image shards, usage, and matches by image shard."""

    shards: list[ShardResult] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    matches: dict[str, StageOutput] = field(default_factory=dict)

    @property
    def held(self) -> str:
        """A message about an image shard that another run is working on; "" if there is none."""
        return next((shard.stopped for shard in self.shards if shard.held), "")

    @property
    def unaffordable(self) -> bool:
        """Whether asking ended at a cap of the budget."""
        return any(shard.spent for shard in self.shards)

    @property
    def pending(self) -> int:
        return sum(shard.pending for shard in self.shards)

    @property
    def waiting(self) -> list[PendingBatch]:
        """Batches under way; a later run can collect one that has ended, and continue from its answers."""
        shards = [shard for shard in self.shards if shard.pending and not shard.held]
        return batch_wait.watched([batch for shard in shards for batch in shard.waiting], self.usage)

    @property
    def reasons(self) -> list[str]:
        """Why something is pending, each reason once."""
        found = [shard.stopped for shard in self.shards if shard.stopped] + list(self.usage.unavailable.values())
        found += batch_wait.describe([batch for shard in self.shards if shard.pending for batch in shard.waiting])
        found += [] if found else self.usage.gave_up.values()
        return list(dict.fromkeys(found))


def generate(
    workspace: Workspace,
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
    """Match, filter, write and vote, for all sources, some, or a lane; only units without an answer are asked about.

    last_stage: the last stage to run. ask: if False, no model is asked, and the answers of the journals are used.
    commit: if False, filter, write and vote write no stage output. taxonomy: a version; None: the newest. only: by
    image shard, the images that are asked about; None: all. wait: wait for batches, as long as the settings say.

    Units that could not be answered are pending; ``reasons`` says why. Raises TaskGalaxyError for the first image shard
    that failed, after the image shards under way have ended, because their requests are paid for.
    """
    progress = progress or Silent()
    if ask:
        workspace.publish_settings()
    denied = workspace.registry.denied()
    shards = shards_of_lane(workspace, lane) if lane else shards_of(workspace, sources)
    shards = [shard for shard in workspace.registry.with_claims(shards) if only is None or shard.id in only]
    committed = {
        shard.id: workspace.stage_outputs.committed(shard.id) for shard in shards
    }  # a run lists each image shard once
    matches = match_shards(workspace, shards, committed, progress, taxonomy)
    result = RunResult()
    try:
        if last_stage != "match":
            result = asyncio.run(
                _run_shards(
                    workspace, matches, committed, last_stage, ask, commit, denied, progress, only=only, wait=wait
                )
            )
    finally:
        _erase_late(workspace, denied, matches)
        if workspace.stage_outputs.written:
            marker_index.add(workspace.store, workspace.stage_outputs.written)
    result.matches = matches
    return result


def _erase_late(workspace: Workspace, denied: Collection[ImageId], shards: Iterable[str]) -> None:
    """Erase what this run wrote about images that were taken down while it worked on these image shards."""
    if late := workspace.registry.denied().difference(denied):
        taken_down = workspace.registry.taken_down()
        for shard in shards:
            if gone := late.intersection(taken_down.get(shard, ())):
                erase_from_shard(workspace, shard, gone)


def look_through(
    workspace: Workspace,
    matches: Mapping[str, StageOutput],
    committed: Mapping[str, Committed],
    computed: Mapping[str, Sequence[Match]],
) -> RunResult:
    """The results of filter, write and vote for these image shards with the answers that exist; writes nothing.

    matches: the match outputs by image shard. computed: the rows of those that are not committed. committed: each image
    shard's stage outputs.
    """
    return asyncio.run(_run_shards(workspace, matches, committed, "vote", False, False, (), Silent(), computed))


async def _run_shards(
    workspace: Workspace,
    matches: Mapping[str, StageOutput],
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
    gateway = Gateway(Shares(workspace.store, progress.note))
    result = RunResult(usage=gateway.usage)

    def told(stage: str, units: int) -> None:
        progress.advance("generate", 0, **{f"{stage} units": units})
        progress.usage("generate", gateway.usage)

    run = Run(
        workspace,
        StageKeys(workspace),
        gateway if ask else None,
        workspace.run_budget(),
        workspace.edits().counts(),
        commit,
        last_stage,
        told,
        only,
    )
    progress.stage("generate", len(matches), "shards")
    slots = asyncio.Semaphore(workspace.settings.run.homes_at_once)
    failed: list[TaskGalaxyError] = []
    looking = asyncio.Lock()
    batch = workspace.settings.run.batch
    by = batch_wait.deadline(batch) if wait and ask else 0.0

    async def once(shard: str, stage_output: StageOutput, there: Committed) -> ShardResult | None:
        async with slots:
            if failed:
                return None
            try:
                outcome = await ShardRun(run, shard, stage_output, there, (computed or {}).get(shard))()
            except TaskGalaxyError as error:
                progress.note(f"{error} The shards under way are ended first.")
                failed.append(error)
                return None
            if outcome.wrote:
                async with looking:
                    await asyncio.to_thread(_erase_late, workspace, denied, [shard])
            return outcome

    async def one(shard: str, stage_output: StageOutput) -> None:
        outcome = await once(shard, stage_output, committed[shard])
        while outcome and outcome.pending and not outcome.held and not failed:
            if not await batch_wait.until_one_ends(gateway, outcome.waiting, batch, by):
                break
            outcome = await once(shard, stage_output, await asyncio.to_thread(workspace.stage_outputs.committed, shard))
        if outcome is None:
            return
        result.shards.append(outcome)
        counted = [stage.counts for stage in outcome.stages.values() if stage.counts]
        rejects = sum(sum(counts.rejects.values()) for counts in counted)
        progress.advance("generate", rejects=rejects, pending=outcome.pending)

    try:
        async with asyncio.TaskGroup() as group:
            for shard, stage_output in matches.items():
                group.create_task(one(shard, stage_output))
    finally:
        await gateway.aclose()
    if failed:
        raise failed[0]
    if gateway.usage.requests:
        run.run_budget.ledger.fold()
    result.shards.sort(key=lambda shard: shard.id)
    return result
