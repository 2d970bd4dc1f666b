"""A run: match all image shards, then filter, write and vote for each of them, several at once.

A second run on unchanged inputs asks no model and encodes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskgalaxy_ops.errors import OriginError, TaskGalaxyError
from taskgalaxy_ops.generation.embed import Committed, Unread
from taskgalaxy_ops.generation.erase import erase_from_shard
from taskgalaxy_ops.generation.lanes import Lane, shards_of, shards_of_lane
from taskgalaxy_ops.generation.match_run import computed_matches, match_rows, match_shards
from taskgalaxy_ops.generation.shard_run import Run, ShardResult, ShardRun
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.starving import ensure_recorded
from taskgalaxy_ops.generation.target_run import StoreTargets, store_targets
from taskgalaxy_ops.generation.targets import Candidate
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.inference.batch_wait import PendingBatch
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage import marker_index
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class RunResult:
    """The outcome of a run: the results of its image shards, usage, and matches by image shard."""

    shards: list[ShardResult] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    matches: dict[str, StageOutput] = field(default_factory=dict)
    # Of the whole store, as the run left them; None: the settings have none.
    targets: StoreTargets | None = field(default=None, repr=False)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Which image shards and stages a run takes, and whether it asks and writes."""

    sources: Sequence[str] | None = None  # None: all live ones
    lane: Lane | None = None  # these image shards, in place of all of the sources'
    only: Mapping[str, Collection[ImageId]] | None = None  # by image shard: the images that models are asked about
    taxonomy: int | None = None  # the version to match with; None: the newest
    last_stage: str = "vote"
    ask: bool = True  # False: no model is asked, and the answers of the journals are used
    commit: bool = True  # False: filter, write and vote write no stage output
    wait: bool = True  # for batches, and for models that serve nothing, as long as the settings say

    @property
    def writes(self) -> bool:
        """Whether the run may write anything at all; one that only reads does not even store what it computed."""
        return self.ask or self.commit


_WHOLE_RUN = RunOptions()


def generate(workspace: Workspace, options: RunOptions = _WHOLE_RUN, *, progress: Progress | None = None) -> RunResult:
    """Match, filter, write and vote; only units without an answer are asked about.

    Units that could not be answered are pending; ``reasons`` says why. Raises TaskGalaxyError for the first image shard
    that failed, after the image shards under way have ended, because their requests are paid for.
    """
    progress = progress or Silent()
    if not options.writes:
        workspace = workspace.snapshot()
    else:
        if options.ask:
            workspace.publish_settings()
        TaxonomyStore(workspace).ensure_seeds()
        ensure_recorded(workspace)
    denied = workspace.registry.denied()
    shards = _chosen_shards(workspace, options)
    committed = {  # a run lists each image shard once
        shard.id: workspace.stage_outputs.committed(shard.id) for shard in shards
    }
    computed: Mapping[str, Sequence[Match]] = {}
    unread: Unread = {}
    if options.writes:
        matches = match_shards(workspace, shards, committed, progress, options.taxonomy, unread)
    else:
        types = TaxonomyStore(workspace).embeddings(options.taxonomy, keep=False)
        matches, computed = computed_matches(workspace, shards, committed, types, progress)
    result = RunResult()
    try:
        if options.last_stage != "match":
            shard_runs = _ShardRuns(workspace, options, denied, progress)
            matched = MatchedShards(matches, committed, computed)
            targets = None if options.only is not None else shard_runs.targets(matched, options.taxonomy)
            result = asyncio.run(shard_runs.run(matched, targets))
    finally:
        if options.writes:
            _erase_late(workspace, denied, matches)
        if workspace.stage_outputs.written:
            marker_index.add(workspace.store, workspace.stage_outputs.written)
    result.matches = matches
    if unread:
        raise _unread(unread)
    return result


def _unread(unread: Unread) -> OriginError:
    first = next(iter(unread.values()))
    waiting = "1 image shard waits" if len(unread) == 1 else f"{len(unread)} image shards wait"
    return OriginError(f"{waiting} for originals that cannot be read, the others are done. {first}")


def look_through(
    workspace: Workspace,
    matches: Mapping[str, StageOutput],
    committed: Mapping[str, Committed],
    computed: Mapping[str, Sequence[Match]],
    targets: StoreTargets | None = None,
) -> RunResult:
    """The results of filter, write and vote for these image shards with the answers that exist; writes nothing.

    All by image shard, as in ``MatchedShards``. targets: of the store, by the newest taxonomy version if None.
    """
    options = RunOptions(ask=False, commit=False, wait=False)
    shard_runs, matched = _ShardRuns(workspace, options, (), Silent()), MatchedShards(matches, committed, computed)
    return asyncio.run(shard_runs.run(matched, targets or shard_runs.targets(matched, None)))


@dataclass(frozen=True, slots=True)
class MatchedShards:
    """What filter, write and vote begin with, each by image shard."""

    outputs: Mapping[str, StageOutput]  # of the match stage
    committed: Mapping[str, Committed]  # the stage outputs that the store has
    computed: Mapping[str, Sequence[Match]] = field(default_factory=dict)  # the rows of match outputs not committed
    subsets: Mapping[str, str | None] = field(default_factory=dict)  # of match outputs of which not all rows count

    def taken(self, targets: StoreTargets | None) -> MatchedShards:
        """The same with the matches alone that targets take."""
        if targets is None:
            return self
        return self.only({shard: targets.rows(shard) for shard in self.outputs}, targets)

    def only(self, rows: Mapping[str, Sequence[Match]], targets: StoreTargets) -> MatchedShards:
        """These image shards alone, with these of their matches."""
        outputs = {shard: self.outputs[shard] for shard in rows}
        subsets = {shard: targets.subset_of(shard, chosen) for shard, chosen in rows.items()}
        return MatchedShards(outputs, self.committed, rows, subsets)


class _ShardRuns:
    """Runs filter, write and vote for image shards, ``homes_at_once`` of them at a time, over one gateway.

    denied: the images that were taken down before the run. What the run writes of images that are taken down meanwhile
    is erased.
    """

    def __init__(
        self, workspace: Workspace, options: RunOptions, denied: Collection[ImageId], progress: Progress
    ) -> None:
        self._workspace, self._denied, self._progress = workspace, denied, progress
        self._gateway = Gateway(Shares(workspace.store, progress.note), progress.note, patient=options.wait)
        edits = workspace.edits()
        self._run = Run(
            workspace=workspace,
            keys=StageKeys(workspace),
            gateway=self._gateway if options.ask else None,
            run_budget=workspace.run_budget(),
            edits=edits.finish() if options.writes else edits.counts(),
            commit=options.commit,
            last_stage=options.last_stage,
            progress=self._show,
            only=options.only,
            begun={} if options.writes else edits.begun(),
        )
        self._name = options.last_stage if options.lane else "generate"  # of what is shown
        self._wait_until = batch_wait.deadline(workspace.settings.run.batch) if options.wait and options.ask else 0.0
        self._slots = asyncio.Semaphore(workspace.settings.run.homes_at_once)
        self._erasing = asyncio.Lock()
        self._failed: list[TaskGalaxyError] = []

    def targets(self, matched: MatchedShards, taxonomy: int | None) -> StoreTargets | None:
        """The targets of the whole store, of which these are some image shards. taxonomy: the version they go by."""
        if self._workspace.settings.targets is None:
            return None
        known = match_rows(self._workspace, matched.outputs, matched.computed)
        return store_targets(self._workspace, self._run.begun, taxonomy=taxonomy, known=known)

    async def run(self, matched: MatchedShards, targets: StoreTargets | None = None) -> RunResult:
        """Raises TaskGalaxyError for the first image shard that failed, once the others under way have ended."""
        try:
            shards = await (self._each(matched, self._run) if targets is None else self._to_targets(matched, targets))
        finally:
            await self._gateway.aclose()
        if self._failed:
            raise self._failed[0]
        if self._gateway.usage.requests:
            self._run.run_budget.ledger.fold()
        return RunResult(shards, self._gateway.usage, targets=targets)

    async def _each(self, matched: MatchedShards, run: Run) -> list[ShardResult]:
        self._progress.stage(self._name, len(matched.outputs), "shards")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._finish_shard(shard, matched, run)) for shard in matched.outputs]
        return sorted(filter(None, (task.result() for task in tasks)), key=lambda shard: shard.id)

    async def _to_targets(self, matched: MatchedShards, targets: StoreTargets) -> list[ShardResult]:
        """Ask in waves, each decided with what the last one gave; then make the outputs of what the targets take.

        A candidate is asked about in one wave of a run. What then has no answer is pending, and keeps no other from
        being asked about. The first wave is of the image shards with batches under way, where there are any.
        """
        asked: dict[str, ShardResult] = {}
        passed: set[Candidate] = set()
        if self._run.gateway is not None:
            wave = {shard: targets.rows(shard) for shard in targets.collecting if shard in matched.outputs}
            wave = wave or targets.wave(matched.outputs.keys(), passed)
            while wave and not self._failed:
                results = await self._each(matched.only(wave, targets), replace(self._run, commit=False))
                passed.update((match.image, match.task_type) for rows in wave.values() for match in rows)
                targets.learn(self._workspace, results)
                asked |= {result.id: _both(asked.get(result.id), result) for result in results}
                wave = targets.wave(matched.outputs.keys(), passed)
        if self._failed:
            return []
        shards = await self._each(matched.taken(targets), replace(self._run, gateway=None))
        for shard in shards:
            _both(asked.get(shard.id), shard).waiting = asked[shard.id].waiting if shard.id in asked else ()
        return shards

    async def _finish_shard(self, shard: str, matched: MatchedShards, run: Run) -> ShardResult | None:
        """Run an image shard, again after each batch that ends meanwhile; None: it failed, or another did before."""
        committed = matched.committed[shard]
        outcome = await self._run_shard(shard, matched, committed, run)
        while run.gateway and outcome and outcome.pending and not outcome.held and not self._failed:
            batch = self._workspace.settings.run.batch
            if not await batch_wait.until_one_ends(self._gateway, outcome.waiting, batch, self._wait_until):
                break
            committed = await asyncio.to_thread(self._workspace.stage_outputs.committed, shard)
            outcome = await self._run_shard(shard, matched, committed, run)
        if outcome:
            counted = [stage.counts for stage in outcome.stages.values() if stage.counts]
            rejects = sum(sum(counts.rejects.values()) for counts in counted)
            self._progress.advance(self._name, rejects=rejects, pending=outcome.pending)
        return outcome

    async def _run_shard(
        self, shard: str, matched: MatchedShards, committed: Committed, run: Run
    ) -> ShardResult | None:
        async with self._slots:
            if self._failed:
                return None
            try:
                rows, subset = matched.computed.get(shard), matched.subsets.get(shard)
                outcome = await ShardRun(run, shard, matched.outputs[shard], committed, rows, subset)()
            except TaskGalaxyError as error:
                self._progress.note(f"{error} The shards under way are ended first.")
                self._failed.append(error)
                return None
            if outcome.wrote:
                async with self._erasing:
                    await asyncio.to_thread(_erase_late, self._workspace, self._denied, [shard])
            return outcome

    def _show(self, stage: str, units: int) -> None:
        self._progress.advance(self._name, 0, **{f"{stage} units": units})
        self._progress.usage(self._name, self._gateway.usage)


def _both(earlier: ShardResult | None, later: ShardResult) -> ShardResult:
    """An image shard's result of a later wave, with what the earlier ones met."""
    if earlier is not None:
        later.stopped, later.held = later.stopped or earlier.stopped, later.held or earlier.held
        later.spent, later.wrote = later.spent or earlier.spent, later.wrote or earlier.wrote
    return later


def _chosen_shards(workspace: Workspace, options: RunOptions) -> list[ImageShard]:
    """The image shards that the options name, those that have live images. Raises SourceError."""
    shards = shards_of_lane(workspace, options.lane) if options.lane else shards_of(workspace, options.sources)
    return [
        shard for shard in workspace.registry.with_claims(shards) if options.only is None or shard.id in options.only
    ]


def _erase_late(workspace: Workspace, denied: Collection[ImageId], shards: Iterable[str]) -> None:
    """Erase what this run wrote about images that were taken down while it worked on these image shards."""
    if late := workspace.registry.denied().difference(denied):
        taken_down = workspace.registry.taken_down()
        for shard in shards:
            if gone := late.intersection(taken_down.get(shard, ())):
                erase_from_shard(workspace, shard, gone)
