"""Filter, write and vote for one home: units needed (pure), ask those that the journal lacks, shard from the journal.

A shard whose key is committed is not computed again, and a home whose shards are all there is not even read. While a
stage has pending units its answered ones flow on, but neither it nor what follows gets a marker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops import qa, voting
from taskgalaxy_ops.asking import Asker, Till
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.models.chat import Gateway
from taskgalaxy_ops.models.questions import RENDER_VERSION, Question, Unit
from taskgalaxy_ops.records import Match, Pair, Reject, Relevant, Verdict, Vote
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.journal import Answer
from taskgalaxy_ops.storage.shards import Shard, Stats, Table, shard_key, table

ASKING_STAGES = ("filter", "write", "vote")


@dataclass(frozen=True, slots=True)
class StageCount:
    """A stage of a home: in = out + rejected + pending. ``missing``: units that were not answered when it began."""

    stage: str
    units_in: int
    units_out: int
    rejects: Mapping[str, int]
    pending: int
    fresh: bool  # computed in this run; False: its shard was there
    missing: int = 0


@dataclass(frozen=True, slots=True)
class _Made:
    tables: dict[str, Table]
    units_in: int
    units_out: int
    rejects: list[Reject]
    pending: int


@dataclass(slots=True)
class HomeResult:
    """What a run of a home came to."""

    home: str
    counts: dict[str, StageCount] = field(default_factory=dict)
    vote: Shard | None = None  # committed; None while something is pending
    voted: voting.Voted | None = None  # what was reached so far, where nothing is committed
    stopped: str = ""  # why asking ended early, "" if it did not

    @property
    def pending(self) -> int:
        return sum(count.pending for count in self.counts.values())


@dataclass(frozen=True, slots=True)
class Run:
    """What the homes of one run share. ``gateway`` None: nothing is asked."""

    galaxy: Galaxy
    gateway: Gateway | None
    till: Till
    edits: Mapping[str, int]
    commit: bool = True  # False: shards are computed, and not written
    last_stage: str = "vote"
    progress: Callable[[str, str, int], None] = lambda home, stage, units: None


class HomeRun:
    """Runs one home. Its inputs are the committed match shard; everything else it finds in the store."""

    def __init__(self, run: Run, home: str, match: Shard, committed: Mapping[tuple[str, str], Shard]) -> None:
        self._run = run
        self._galaxy = run.galaxy
        self._match = match
        self._committed = committed
        self._asker = Asker(
            run.galaxy, run.gateway, run.till, home, lambda stage, units: run.progress(home, stage, units)
        )
        self.result = HomeResult(home)

    async def __call__(self) -> HomeResult:
        """Run filter, write and vote, as far as models and budget allow."""
        async with self._asker:
            await self._stages()
        self.result.stopped = self._asker.stopped
        return self.result

    async def _stages(self) -> None:
        settings, prompts = self._galaxy.settings, self._galaxy.prompts
        filter_question = qa.filter_question(prompts["filter"], settings.teacher)
        relevant, filter_output = await self._filter(filter_question)
        if self._run.last_stage == "filter":
            return
        write_questions: dict[str, Question] = {
            variant: qa.write_question(prompts[f"write_{variant}"], settings.teacher, variant)
            for variant in settings.write.variants
        }
        pairs, write_output = await self._write(write_questions, relevant, filter_output)
        if self._run.last_stage == "write":
            return
        vote_questions = [
            voting.vote_question(prompts["vote"], judge, settings.vote.show_answer) for judge in settings.judges
        ]
        await self._vote(vote_questions, pairs, write_output)

    # Each stage gives its rows lazily (a stage that follows may be committed too) and its output's fingerprint, None
    # while provisional.

    async def _filter(self, question: Question) -> tuple[Callable[[], list[Relevant]], str | None]:
        key = self._key("filter", qa.FILTER_VERSION, [question], {}, {"match": self._match.output})
        if shard := self._there("filter", key):
            return lambda: self._galaxy.shards.load(shard, "relevant", Relevant), shard.output
        units = qa.filter_units(question, self._galaxy.shards.load(self._match, "matches", Match))
        missing = await self._asker.ask(lambda answers: [(question, _lacking(units, answers))])
        made = qa.filtered(units, self._asker.answers)
        tables = {"relevant": table(made.relevant, Relevant), "rejects": table(made.rejects, Reject)}
        output = self._commit(
            "filter", key, _Made(tables, len(units), len(made.relevant), made.rejects, made.pending), missing
        )
        return lambda: made.relevant, output

    async def _write(
        self, questions: Mapping[str, Question], relevant: Callable[[], list[Relevant]], inputs: str | None
    ) -> tuple[Callable[[], list[Pair]], str | None]:
        variants = {"variants": sorted(questions)}
        key = self._key("write", qa.WRITE_VERSION, list(questions.values()), variants, {"filter": inputs})
        if inputs and (shard := self._there("write", key)):
            return lambda: self._galaxy.shards.load(shard, "pairs", Pair), shard.output
        rows = relevant()
        units = {variant: qa.write_units(question, rows) for variant, question in questions.items()}
        missing = await self._asker.ask(
            lambda answers: [(questions[variant], _lacking(units[variant], answers)) for variant in units]
        )
        made = [qa.written(variant, units[variant], self._asker.answers) for variant in sorted(units)]
        pairs = sorted((pair for part in made for pair in part.pairs), key=lambda pair: pair.pair)
        rejects = [reject for part in made for reject in part.rejects]
        tables = {"pairs": table(pairs, Pair), "rejects": table(rejects, Reject)}
        result = _Made(tables, sum(map(len, units.values())), len(pairs), rejects, sum(part.pending for part in made))
        return lambda: pairs, self._commit("write", key if inputs else None, result, missing)

    async def _vote(self, questions: Sequence[Question], pairs: Callable[[], list[Pair]], inputs: str | None) -> None:
        settings = self._galaxy.settings.vote
        rules = {"quorum": settings.quorum, "audit_share": settings.audit_share, "show_answer": settings.show_answer}
        key = self._key("vote", voting.VOTE_VERSION, questions, rules, {"write": inputs})
        if inputs and (shard := self._there("vote", key)):
            self.result.vote = shard
            return
        rows = pairs()

        def needed(answers: Mapping[str, Answer]) -> list[tuple[Question, list[Unit]]]:
            return list(zip(questions, voting.votes_needed(rows, questions, settings, answers), strict=True))

        missing = await self._asker.ask(needed)
        made = voting.voted(rows, questions, settings, self._asker.answers)
        tables = {
            "votes": table(made.votes, Vote),
            "verdicts": table(made.verdicts, Verdict),
            "samples": table(made.samples, Pair),
            "rejects": table(made.rejects, Reject),
        }
        result = _Made(tables, len(rows), len(made.samples), made.rejects, made.pending)
        output = self._commit("vote", key if inputs else None, result, missing)
        if output is None:
            self.result.voted = made
        else:
            self.result.vote = Shard(self.result.home, "vote", key, output)

    def _key(
        self,
        stage: str,
        version: int,
        questions: Sequence[Question],
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
    ) -> str:
        asked = [
            {**_identity(question.model), "prompt": question.prompt, "head": question.head} for question in questions
        ]
        edits = self._run.edits.get(self.result.home, 0)
        return shard_key(stage, version, {**settings, "asked": asked}, {**inputs, "edits": edits})

    def _there(self, stage: str, key: str) -> Shard | None:
        shard = self._committed.get((stage, key))
        if shard is not None:
            self.result.counts[stage] = StageCount(stage, 0, 0, {}, 0, fresh=False)
        return shard

    def _commit(self, stage: str, key: str | None, made: _Made, missing: int) -> str | None:
        rejects = Counter(reject.reason for reject in made.rejects)
        if made.units_in != made.units_out + len(made.rejects) + made.pending:
            raise AssertionError(f"home {self.result.home}: the {stage} funnel does not add up: {made}")
        count = StageCount(stage, made.units_in, made.units_out, rejects, made.pending, fresh=True, missing=missing)
        self.result.counts[stage] = count
        if key is None or made.pending or not self._run.commit:
            return None
        stats = Stats(made.units_in, made.units_out, dict(sorted(rejects.items())))
        return self._galaxy.shards.commit(self.result.home, stage, key, made.tables, stats).output


def _identity(model: Model) -> dict[str, Any]:
    """What of a model its answers depend on, and the name that the data call it by."""
    return {
        "name": model.name,
        "model": model.model,
        "revision": model.revision,
        "temperature": model.temperature,
        "render": [RENDER_VERSION, model.image_side, model.image_quality],
    }


def _lacking(units: Sequence[Unit], answers: Mapping[str, Answer]) -> list[Unit]:
    return [unit for unit in units if unit.key not in answers]
