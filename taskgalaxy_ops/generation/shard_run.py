"""Filter, write and vote for one image shard.

Each stage lists the units that it needs (pure), asks those that the journal lacks, and makes its output from the
journal (pure).

A stage output whose key is committed is not computed again, and the journal of an image shard whose stage outputs are
all committed is not read. While a stage has pending units, its answered ones go on to the next stage, but neither this
stage nor the following ones are committed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages import TABLES
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.generation.stages import vote as vote_stage
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.inference.batch_wait import PendingBatch
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.session import InferenceSession, Needed
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer, ImageId, Match, Pair, Relevant
from taskgalaxy_ops.storage.edits import Counts
from taskgalaxy_ops.storage.shards import Key, StageOutput, Stats, output_of, table
from taskgalaxy_ops.usage import Tally, tally
from taskgalaxy_ops.workspace import Workspace

Record = TypeVar("Record")
Rows = Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage of an image shard: committed (``stage_output``), or only computed (``rows``).

    ``output``: the fingerprint of its tables; None while something is pending, here or in an input. ``counts``: None if
    it was committed before, and not read. ``missing``: units that had no answer when it began. ``most``: the most units
    that it may have to ask for the inputs that it has.
    """

    stage_output: StageOutput | None
    rows: Rows
    counts: StageCounts | None
    key: Key
    output: str | None
    missing: int = 0
    most: int = 0


@dataclass(slots=True)
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


@dataclass(frozen=True, slots=True)
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


class ShardRun:
    """Runs one image shard.

    match: the output of its match stage. matches: its rows; None: it is committed, and they are read from the store.
    """

    def __init__(
        self,
        run: Run,
        shard: str,
        match: StageOutput,
        committed: Mapping[tuple[str, str], StageOutput],
        matches: Sequence[Match] | None = None,
    ) -> None:
        self._run = run
        self._workspace = run.workspace
        self._match = match
        self._matches = matches
        self._committed = committed
        self._session = InferenceSession(
            run.workspace.store, run.workspace.settings.run, run.gateway, run.run_budget, shard, run.progress
        )
        self.result = ShardResult(shard)
        self._began = 0.0  # when the stage at hand began

    async def __call__(self) -> ShardResult:
        """Run filter, write and vote, as far as models and budget allow."""
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
        filtered = await self._filter()
        if self._run.last_stage == "filter":
            return
        written = await self._write(filtered)
        if self._run.last_stage == "write":
            return
        await self._vote(written)

    async def _filter(self) -> StageResult:
        template, key = self._run.keys.filter_template, self._run.keys.filter(self._match.output, self._edits("filter"))
        if there := self._there("filter", key):
            return there
        matches = self._matches
        if matches is None:
            matches = self._workspace.stage_outputs.load(self._match, "matches", Match)
        units = filter_stage.filter_units(template, matches)
        missing = await self._ask(lambda answers: [(template, _lacking(units, answers))])
        made = filter_stage.filtered(units, self._session.answers)
        rows: Rows = {"relevant": made.relevant, "rejects": made.rejects}
        return self._made("filter", key, rows, (len(units), len(made.relevant), made.pending), missing)

    async def _write(self, filtered: StageResult) -> StageResult:
        templates, key = self._run.keys.write_templates, self._run.keys.write(filtered.output, self._edits("write"))
        if there := self._there("write", key):
            return there
        relevant = self._rows(filtered, "relevant", Relevant)
        units = {variant: write_stage.write_units(template, relevant) for variant, template in templates.items()}
        missing = await self._ask(
            lambda answers: [(templates[variant], _lacking(units[variant], answers)) for variant in units]
        )
        made = [write_stage.written(variant, units[variant], self._session.answers) for variant in units]
        pairs = sorted((pair for part in made for pair in part.pairs), key=lambda pair: pair.pair)
        rows: Rows = {"pairs": pairs, "rejects": [reject for part in made for reject in part.rejects]}
        pending = sum(part.pending for part in made)
        return self._made("write", key, rows, (sum(map(len, units.values())), len(pairs), pending), missing)

    async def _vote(self, written: StageResult) -> StageResult:
        settings = self._workspace.settings.vote
        templates, key = self._run.keys.vote_templates, self._run.keys.vote(written.output, self._edits("vote"))
        if there := self._there("vote", key):
            return there
        pairs = self._rows(written, "pairs", Pair)
        most = len(vote_stage.votes_at_most(pairs, templates, settings, self._session.answers))

        def needed(answers: Mapping[str, Answer]) -> list[tuple[RequestTemplate, list[RequestItem]]]:
            return list(zip(templates, vote_stage.votes_needed(pairs, templates, settings, answers), strict=True))

        missing = await self._ask(needed)
        made = vote_stage.voted(pairs, templates, settings, self._session.answers)
        rows: Rows = {"votes": made.votes, "verdicts": made.verdicts, "samples": made.samples, "rejects": made.rejects}
        return self._made("vote", key, rows, (len(pairs), len(made.samples), made.pending), missing, most)

    async def _ask(self, needed: Needed) -> int:
        """Ask what is needed (a probe: only about its images); returns the number of units that had no answer."""
        only = (self._run.only or {}).get(self.result.id)
        if only is None:
            return await self._session.ask(needed)
        return await self._session.ask(
            lambda answers: [(template, [u for u in units if u.image in only]) for template, units in needed(answers)]
        )

    def _edits(self, stage: str) -> int:
        return self._run.edits.get((self.result.id, stage), 0)

    def _there(self, stage: str, key: Key) -> StageResult | None:
        self._began = time.monotonic()
        stage_output = self._committed.get((stage, key.key)) if key.key else None
        if stage_output is None:
            return None
        self.result.stages[stage] = StageResult(stage_output, {}, None, key, stage_output.output)
        return self.result.stages[stage]

    def _rows(self, result: StageResult, name: str, record: type[Record]) -> list[Record]:
        return (
            self._workspace.stage_outputs.load(result.stage_output, name, record)
            if result.stage_output
            else result.rows[name]
        )

    def _made(
        self, stage: str, key: Key, rows: Rows, numbers: tuple[int, int, int], missing: int, most: int | None = None
    ) -> StageResult:
        """Commit a stage's rows if nothing is pending in it or its inputs; else keep them in memory as provisional.

        numbers: units in, out and pending. missing, most: see `StageResult`.
        """
        units_in, units_out, pending = numbers
        rejects = dict(sorted(Counter(reject.reason for reject in rows["rejects"]).items()))
        counts = StageCounts(stage, units_in, units_out, rejects, pending)
        stage_output, output = None, None
        if key.key and not pending:
            tables = {name: table(rows[name], record) for name, record in TABLES[stage].items()}
            output = output_of(tables)
            if self._run.commit:
                asked = (self._asked() or {}).get(stage, Tally())
                stats = Stats(units_in, units_out, rejects, round(time.monotonic() - self._began, 3), asked.to_json())
                stage_output = self._workspace.stage_outputs.commit(
                    self.result.id, stage, key.key, tables, stats, key.made_of
                )
                self.result.wrote = True
        most = missing if most is None else most
        self.result.stages[stage] = StageResult(
            stage_output, {} if stage_output else rows, counts, key, output, missing, most
        )
        return self.result.stages[stage]


def _lacking(units: Iterable[RequestItem], answers: Mapping[str, Answer]) -> list[RequestItem]:
    return [unit for unit in units if unit.key not in answers]
