"""The asking stages (filter, write, vote) for one image shard.

Each stage lists the units that it needs (pure), asks those that the journal lacks, and makes its output from the
journal (pure).

A stage output whose key is committed is not computed again, and the journal of an image shard whose stage outputs are
all committed is not read. While a stage has pending units, its answered ones go on to the next stage, but neither this
stage nor the following ones are committed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation import stages
from taskgalaxy_ops.generation.corrected import put_to_vote
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING, STAGE, Stage
from taskgalaxy_ops.generation.stages.asking import Output, pure
from taskgalaxy_ops.inference.batch_wait import PendingBatch
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession, Needed
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage.edits import Begun, Counts
from taskgalaxy_ops.storage.shards import Key, StageOutput, Stats, output_of, table
from taskgalaxy_ops.usage import Tally, tally
from taskgalaxy_ops.workspace import Workspace

Record = TypeVar("Record")
Rows = Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A stage of an image shard: committed (``stage_output``), or only computed (``rows``).

    ``output``: the fingerprint of its tables; None while something is pending, here or in an input. ``counts``: None if
    it was committed before, and not read. ``missing``: units that had no answer when it began. ``most``: the most units
    that it may have to ask for the inputs that it has.
    """

    key: Key
    stage_output: StageOutput | None = None
    rows: Rows = field(default_factory=dict)
    counts: StageCounts | None = None
    output: str | None = None
    missing: int = 0
    most: int = 0


@dataclass(slots=True, kw_only=True)
class ShardResult:
    """The outcome of running an image shard."""

    id: str  # of the image shard
    stages: dict[str, StageResult] = field(default_factory=dict)
    stopped: str = ""  # why asking ended early, "" if it did not
    held: bool = False  # it ended because another run holds the image shard's lease
    spent: bool = False  # it ended because a cap of the budget was reached
    waiting: Sequence[PendingBatch] = ()  # batches that have not ended
    wrote: bool = False  # it wrote a reply or a stage output
    asked: Mapping[str, Tally] | None = None  # tallies of its journal's replies, by stage; None: it was not read

    @property
    def pending(self) -> int:
        return sum(stage.counts.pending for stage in self.stages.values() if stage.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the image shards of one run share. ``gateway``: None if no model is asked."""

    workspace: Workspace
    keys: StageKeys
    gateway: Gateway | None
    run_budget: RunBudget
    edits: Counts
    commit: bool = True  # False: stage outputs are computed, and not written
    last_stage: str = "vote"
    progress: Callable[[str, int], None] = lambda stage, units: None
    only: Mapping[str, Collection[ImageId]] | None = None  # by image shard: ask only about these images
    begun: Begun = field(default_factory=dict)  # edits that are not finished; none if the run has finished them


class ShardRun:
    """Runs one image shard.

    match: the output of its match stage. matches: its rows; None: it is committed, and they are read from the store.
    subset: what tells these rows from all that the match stage has (``StoreTargets.subset``); None: they are all.
    """

    def __init__(
        self,
        run: Run,
        shard: str,
        match: StageOutput,
        committed: Mapping[tuple[str, str], StageOutput],
        matches: Sequence[Match] | None = None,
        subset: str | None = None,
    ) -> None:
        self._run = run
        self._workspace = run.workspace
        self._match = match
        self._matches = matches
        self._subset = subset
        self._committed = committed
        self._session = InferenceSession(
            run.workspace.store,
            run.workspace.settings.run,
            run.gateway,
            run.run_budget,
            AskedShard(
                id=shard,
                read_image=lambda image: read_image(run.workspace, image, shard),
                begun=run.begun.get(shard),
            ),
            run.progress,
        )
        self.result = ShardResult(id=shard)
        self._began = 0.0  # when the stage at hand began

    async def __call__(self) -> ShardResult:
        """Run the asking stages, as far as models and budget allow."""
        async with self._session:
            await self._stages()
        self.result.wrote |= self._session.asked
        self.result.stopped, self.result.held = self._session.stopped, self._session.held
        self.result.spent = self._session.spent
        self.result.waiting = self._session.waiting
        self.result.asked = self._asked()
        return self.result

    def _asked(self) -> dict[str, Tally] | None:
        return None if (replies := self._session.replies) is None else tally(replies)

    async def _stages(self) -> None:
        matches = {} if self._matches is None else {"matches": list(self._matches)}
        committed = self._match if self._matches is None else None
        made = StageResult(
            key=Key(self._match.key, {}), stage_output=committed, rows=matches, output=self._match.output
        )
        for name in ASKING:
            made = await self._stage(STAGE[name], made)
            if name == self._run.last_stage:
                return

    async def _stage(self, stage: Stage, before: StageResult) -> StageResult:
        """List what is needed, ask what has no answer, and make the output; nothing of it where the shard is there."""
        keys = self._run.keys
        shard = self.result.id
        edits = self._run.edits.get((shard, stage.name), 0)
        key = keys.asking(stage.name, before.output, edits, shard, self._subset)
        if there := self._there(stage.name, key):
            return there
        rows = self._rows(before, stage.reads, STAGE[stages.before(stage.name)].tables[stage.reads])
        if stage.name == "vote":
            rows = put_to_vote(self._workspace, rows)
        settings = staged(self._workspace, stage=stage.name, whole=before.output is not None)
        work = pure(stage.name).work(keys.templates_for(shard)[stage.name], rows, settings)
        most = work.most(self._session.answers) if work.most else None
        missing = await self._ask(work.needed)
        return self._made(stage, key, work.output(self._session.answers), missing, most)

    async def _ask(self, needed: Needed) -> int:
        """Ask what is needed (a probe: only about its images); returns the number of units that had no answer."""
        only = (self._run.only or {}).get(self.result.id)
        if only is None:
            return await self._session.ask(needed)
        return await self._session.ask(
            lambda answers: [(template, [u for u in units if u.image in only]) for template, units in needed(answers)]
        )

    def _there(self, stage: str, key: Key) -> StageResult | None:
        self._began = time.monotonic()
        stage_output = self._committed.get((stage, key.key)) if key.key else None
        if stage_output is None:
            return None
        self.result.stages[stage] = StageResult(key=key, stage_output=stage_output, output=stage_output.output)
        return self.result.stages[stage]

    def _rows(self, result: StageResult, name: str, record: type[Record]) -> list[Record]:
        return (
            self._workspace.stage_outputs.load(result.stage_output, name, record)
            if result.stage_output
            else result.rows[name]
        )

    def _made(self, stage: Stage, key: Key, made: Output, missing: int, most: int | None) -> StageResult:
        """Commit a stage's rows if nothing is pending in it or its inputs; else keep them in memory as provisional.

        missing, most: see `StageResult`.
        """
        units_in, units_out, rows = made.units_in, made.units_out, made.rows
        rejects = dict(sorted(Counter(reject.reason for reject in rows["rejects"]).items()))
        counts = StageCounts(stage.name, units_in, units_out, rejects, made.pending)
        stage_output, output = None, None
        if key.key and not made.pending:
            tables = {name: table(rows[name], record) for name, record in stage.tables.items()}
            output = output_of(tables)
            if self._run.commit:
                asked = (self._asked() or {}).get(stage.name, Tally())
                stats = Stats(units_in, units_out, rejects, round(time.monotonic() - self._began, 3), asked.to_json())
                stage_output = self._workspace.stage_outputs.commit(
                    self.result.id, stage.name, key.key, tables, stats, key.made_of
                )
                self.result.wrote = True
        most = missing if most is None else most
        self.result.stages[stage.name] = StageResult(
            key=key,
            stage_output=stage_output,
            rows={} if stage_output else rows,
            counts=counts,
            output=output,
            missing=missing,
            most=most,
        )
        return self.result.stages[stage.name]
