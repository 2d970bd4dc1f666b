"""Filter, write and vote for one home: units needed (pure), ask those that the journal lacks, shard from the journal.

A shard whose key is committed is not computed again, and a home whose shards are all there is not even read. While a
stage has pending units its answered ones flow on, but neither it nor what follows gets a marker.
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
from taskgalaxy_ops.inference.batch_wait import Waiting
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.session import Asker, Needed
from taskgalaxy_ops.inference.spending import Till
from taskgalaxy_ops.models.request import Question, Unit
from taskgalaxy_ops.records import Answer, ImageId, Match, Pair, Relevant
from taskgalaxy_ops.storage.edits import Counts
from taskgalaxy_ops.storage.shards import Key, Shard, Stats, output_of, table
from taskgalaxy_ops.usage import Tally, tally
from taskgalaxy_ops.workspace import Galaxy

Record = TypeVar("Record")
Rows = Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage of a home: committed (``shard``), or only computed (``rows``), as something is pending or it only looks.

    ``output``: the fingerprint of what came out; None while something is pending, here or in an input.
    ``counts`` None: the shard was there, and was not read. ``missing``: units that had no answer when it began;
    ``most``: units that it may have to ask at most for the inputs that it has.
    """

    shard: Shard | None
    rows: Rows
    counts: StageCounts | None
    key: Key
    output: str | None
    missing: int = 0
    most: int = 0


@dataclass(slots=True)
class HomeResult:
    """What a run of a home came to."""

    home: str
    stages: dict[str, StageResult] = field(default_factory=dict)
    stopped: str = ""  # why asking ended early, "" if it did not
    held: bool = False  # it ended since another run holds the home
    spent: bool = False  # it ended since a cap of the budget was reached
    waiting: Sequence[Waiting] = ()  # for batches that have not ended
    wrote: bool = False  # a reply or a shard
    asked: Mapping[str, Tally] | None = None  # what its journal holds, by stage; None: it was not read

    @property
    def pending(self) -> int:
        return sum(stage.counts.pending for stage in self.stages.values() if stage.counts)


@dataclass(frozen=True, slots=True)
class Run:
    """What the homes of one run share. ``gateway`` None: nothing is asked."""

    galaxy: Galaxy
    keys: StageKeys
    gateway: Gateway | None
    till: Till
    edits: Counts
    commit: bool = True  # False: shards are computed, and not written
    last_stage: str = "vote"
    progress: Callable[[str, int], None] = lambda stage, units: None
    only: Mapping[str, Collection[ImageId]] | None = None  # by home: ask about these images alone


class HomeRun:
    """Runs one home. Its inputs are the match shard and its rows (None: it is committed); all else is in the store."""

    def __init__(
        self,
        run: Run,
        home: str,
        match: Shard,
        committed: Mapping[tuple[str, str], Shard],
        matches: Sequence[Match] | None = None,
    ) -> None:
        self._run = run
        self._galaxy = run.galaxy
        self._match = match
        self._matches = matches
        self._committed = committed
        self._asker = Asker(run.galaxy.store, run.galaxy.settings.run, run.gateway, run.till, home, run.progress)
        self.result = HomeResult(home)
        self._began = 0.0  # when the stage at hand began

    async def __call__(self) -> HomeResult:
        """Run filter, write and vote, as far as models and budget allow."""
        async with self._asker:
            await self._stages()
        self.result.wrote |= self._asker.asked
        self.result.stopped, self.result.held = self._asker.stopped, self._asker.held
        self.result.spent = self._asker.spent
        self.result.waiting = self._asker.waiting
        self.result.asked = self._asked()
        return self.result

    def _asked(self) -> dict[str, Tally] | None:
        return None if (replies := self._asker.replies) is None else tally(replies)

    async def _stages(self) -> None:
        filtered = await self._filter()
        if self._run.last_stage == "filter":
            return
        written = await self._write(filtered)
        if self._run.last_stage == "write":
            return
        await self._vote(written)

    async def _filter(self) -> StageResult:
        question, key = self._run.keys.filter_question, self._run.keys.filter(self._match.output, self._edits("filter"))
        if there := self._there("filter", key):
            return there
        matches = self._matches
        if matches is None:
            matches = self._galaxy.shards.load(self._match, "matches", Match)
        units = filter_stage.filter_units(question, matches)
        missing = await self._ask(lambda answers: [(question, _lacking(units, answers))])
        made = filter_stage.filtered(units, self._asker.answers)
        rows: Rows = {"relevant": made.relevant, "rejects": made.rejects}
        return self._made("filter", key, rows, (len(units), len(made.relevant), made.pending), missing)

    async def _write(self, filtered: StageResult) -> StageResult:
        questions, key = self._run.keys.write_questions, self._run.keys.write(filtered.output, self._edits("write"))
        if there := self._there("write", key):
            return there
        relevant = self._rows(filtered, "relevant", Relevant)
        units = {variant: write_stage.write_units(question, relevant) for variant, question in questions.items()}
        missing = await self._ask(
            lambda answers: [(questions[variant], _lacking(units[variant], answers)) for variant in units]
        )
        made = [write_stage.written(variant, units[variant], self._asker.answers) for variant in units]
        pairs = sorted((pair for part in made for pair in part.pairs), key=lambda pair: pair.pair)
        rows: Rows = {"pairs": pairs, "rejects": [reject for part in made for reject in part.rejects]}
        pending = sum(part.pending for part in made)
        return self._made("write", key, rows, (sum(map(len, units.values())), len(pairs), pending), missing)

    async def _vote(self, written: StageResult) -> StageResult:
        settings = self._galaxy.settings.vote
        questions, key = self._run.keys.vote_questions, self._run.keys.vote(written.output, self._edits("vote"))
        if there := self._there("vote", key):
            return there
        pairs = self._rows(written, "pairs", Pair)
        most = len(vote_stage.votes_at_most(pairs, questions, settings, self._asker.answers))

        def needed(answers: Mapping[str, Answer]) -> list[tuple[Question, list[Unit]]]:
            return list(zip(questions, vote_stage.votes_needed(pairs, questions, settings, answers), strict=True))

        missing = await self._ask(needed)
        made = vote_stage.voted(pairs, questions, settings, self._asker.answers)
        rows: Rows = {"votes": made.votes, "verdicts": made.verdicts, "samples": made.samples, "rejects": made.rejects}
        return self._made("vote", key, rows, (len(pairs), len(made.samples), made.pending), missing, most)

    async def _ask(self, needed: Needed) -> int:
        """Ask what is needed; of a probe, what is about its images."""
        only = (self._run.only or {}).get(self.result.home)
        if only is None:
            return await self._asker.ask(needed)
        return await self._asker.ask(
            lambda answers: [(question, [u for u in units if u.image in only]) for question, units in needed(answers)]
        )

    def _edits(self, stage: str) -> int:
        return self._run.edits.get((self.result.home, stage), 0)

    def _there(self, stage: str, key: Key) -> StageResult | None:
        self._began = time.monotonic()
        shard = self._committed.get((stage, key.key)) if key.key else None
        if shard is None:
            return None
        self.result.stages[stage] = StageResult(shard, {}, None, key, shard.output)
        return self.result.stages[stage]

    def _rows(self, result: StageResult, name: str, record: type[Record]) -> list[Record]:
        return self._galaxy.shards.load(result.shard, name, record) if result.shard else result.rows[name]

    def _made(
        self, stage: str, key: Key, rows: Rows, numbers: tuple[int, int, int], missing: int, most: int | None = None
    ) -> StageResult:
        """Commit what a stage made if it is whole and so are its inputs; else it is provisional.

        numbers: units in, out and pending.
        """
        units_in, units_out, pending = numbers
        rejects = dict(sorted(Counter(reject.reason for reject in rows["rejects"]).items()))
        counts = StageCounts(stage, units_in, units_out, rejects, pending)
        shard, output = None, None
        if key.key and not pending:
            tables = {name: table(rows[name], record) for name, record in TABLES[stage].items()}
            output = output_of(tables)
            if self._run.commit:
                asked = (self._asked() or {}).get(stage, Tally())
                stats = Stats(units_in, units_out, rejects, round(time.monotonic() - self._began, 3), asked.plain())
                shard = self._galaxy.shards.commit(self.result.home, stage, key.key, tables, stats, key.made_of)
                self.result.wrote = True
        most = missing if most is None else most
        self.result.stages[stage] = StageResult(shard, {} if shard else rows, counts, key, output, missing, most)
        return self.result.stages[stage]


def _lacking(units: Iterable[Unit], answers: Mapping[str, Answer]) -> list[Unit]:
    return [unit for unit in units if unit.key not in answers]
