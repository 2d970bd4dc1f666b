"""The votes of a store as counts: of ballots, over all pairs and by branch, form and source; by time; and their costs.

Read from stage outputs and journals, one image shard at a time; memory grows with the number of different ballots and
groups, not with pairs. Asks no model.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.staged import measurable, staged
from taskgalaxy_ops.generation.vote_rule import Rule, rule_of
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import PairId, Reason
from taskgalaxy_ops.release.agreement import Ballot, Ballots
from taskgalaxy_ops.release.vote_table import BallotTable, ballot, ballot_table
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

BRANCH, FORM, SOURCE = "branch", "form", "source"
PERIODS = 10  # that a journal's time is cut into, if it is all of one month
_MINUTE = 60


@dataclass(slots=True)
class VotesPaid:
    """What a judge's votes cost so far, nano-dollars; and at list prices."""

    votes: int = 0
    cost: int = 0
    list_cost: int = 0


@dataclass(slots=True, kw_only=True)
class StoreVotes:
    """What a store's votes come to. A ballot counts once a pair that has a verdict."""

    judges: tuple[str, ...]  # in the order in which they are asked
    rule: Rule
    pending: int
    ballots: Ballots
    groups: dict[str, dict[str, Counter[Ballot]]]  # by branch, form, source: by name
    gold: dict[Ballot, list[int]] = field(default_factory=dict)  # wrong and right pairs
    planted: Counter[Ballot] = field(default_factory=Counter)  # errors that were planted, which are none of the pairs
    # By branch, form and source, by name: the pairs that were asked blind, by whether they were answered rightly.
    blind: dict[str, dict[str, Counter[bool]]] = field(default_factory=dict)
    minutes: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)  # by judge: (minute, vote)
    paid: dict[str, VotesPaid] = field(default_factory=dict)  # by judge
    tables: list[BallotTable] = field(default_factory=list)  # of each image shard, where they are kept

    def accepts(self, cast: Ballot) -> bool:
        """The verdict of a ballot. Audits are cast when they can no longer change it, so that all votes may count."""
        votes = dict(cast)
        return self.rule.accepts(tuple(map(votes.get, self.judges)))

    def price(self, judge: str) -> float | None:
        """USD of a vote, by what the judge's votes cost so far, at list prices where none was paid; None: unknown."""
        paid = self.paid.get(judge)
        if paid is None or not paid.votes or not (paid.cost or paid.list_cost):
            return None
        return (paid.cost or paid.list_cost) / 1e9 / paid.votes


def store_votes(
    workspace: Workspace, gold: Mapping[PairId, bool], progress: Progress, *, keep_ballots: bool = False
) -> StoreVotes:
    """Count a store's votes by the present settings; ``gold``: verdicts of people, by pair."""
    workspace = measurable(workspace)
    settings = workspace.settings
    judges = tuple(judge.name for judge in settings.judges)
    results = RunResults(workspace)
    found = StoreVotes(
        judges=judges,
        rule=rule_of(staged(workspace).vote, judges),
        pending=results.pending,
        ballots=Ballots(settings.vote.audit_share),
        groups={BRANCH: {}, FORM: {}, SOURCE: {}},
    )
    taxonomy = TaxonomyStore(workspace).version()
    shards = list(results.shards())
    progress.stage("judges", len(shards), "image shards")
    for shard, _ in shards:
        votes = results.columns(shard, "vote", "votes", ("pair", "judge", "vote"))
        table = ballot_table(votes, found.judges)
        _count(found, results, shard, table, taxonomy, gold)
        if keep_ballots:
            found.tables.append(table)
        _read_journal(found, workspace, shard.id)
        progress.advance("judges")
    return found


def _count(
    found: StoreVotes,
    results: RunResults,
    shard: ShardResult,
    table: BallotTable,
    taxonomy: TaxonomyVersion,
    gold: Mapping[PairId, bool],
) -> None:
    about = results.columns(shard, "write", "pairs", ("pair", "image", "task_type", "variant"))
    sources: dict[str, set[str]] = {}
    for claim in results.workspace.registry.claims_of(shard.id):
        sources.setdefault(claim.image, set()).add(claim.source)
    known = {int(code): ballot(int(code), table.judges) for code in np.unique(table.codes)}
    codes = dict(zip(table.pairs.to_pylist(), table.codes.tolist(), strict=True))
    blind = _answered_blind(results, shard)
    found.planted.update(known[codes[pair]] for pair in _rejected_as(results, shard, Reason.PLANTED))
    for pair, image, task_type, form in zip(*(column.to_pylist() for column in about.columns), strict=True):
        branch = taxonomy.shown(task_type).partition("~")[0]
        groups = [(BRANCH, branch), (FORM, form), *((SOURCE, name) for name in sources.get(image, ()))]
        if pair in blind:
            for kind, name in groups:
                found.blind.setdefault(kind, {}).setdefault(name, Counter())[blind[pair]] += 1
        if pair not in codes:  # its verdict is open, or no judge was asked
            continue
        own = known[codes[pair]]
        found.ballots.add(pair, own)
        if pair in gold:
            found.gold.setdefault(own, [0, 0])[gold[pair]] += 1
        for kind, name in groups:
            found.groups[kind].setdefault(name, Counter())[own] += 1


def _answered_blind(results: RunResults, shard: ShardResult) -> dict[PairId, bool]:
    """The pairs that were asked without their image, and whether they were answered rightly."""
    verdicts = results.columns(shard, "vote", "verdicts", ("pair", "blind"))
    found = zip(verdicts["pair"].to_pylist(), verdicts["blind"].to_pylist(), strict=True)
    told = {pair: blind for pair, blind in found if blind is not None}
    return told | dict.fromkeys(_rejected_as(results, shard, Reason.ANSWERED_BLIND), True)


def _rejected_as(results: RunResults, shard: ShardResult, reason: Reason) -> list[PairId]:
    rejects = results.columns(shard, "vote", "rejects", ("pair", "reason"))
    rows = zip(rejects["pair"].to_pylist(), rejects["reason"].to_pylist(), strict=True)
    return [pair for pair, why in rows if why == reason]


def _read_journal(found: StoreVotes, workspace: Workspace, shard: str) -> None:
    """Count the votes that the journal has, whatever settings they were asked under, and what they cost."""
    journal = Journal(workspace.store, shard)
    cast: dict[str, tuple[str, int]] = {}  # by unit: of which judge, and the minute of its latest reply
    for outline in journal.outlines():
        if outline["stage"] != "vote":
            continue
        paid = found.paid.setdefault(outline["model"], VotesPaid())
        paid.votes += len(outline["answers"])
        paid.cost, paid.list_cost = paid.cost + outline["cost"], paid.list_cost + outline["list_cost"]
        for unit in outline["answers"]:
            cast[unit] = outline["model"], int(outline["at"] // _MINUTE)
    for unit, (judge, minute) in cast.items():
        answer = journal.answers.get(unit)
        if answer is not None and answer.value is not None and "vote" in answer.value:  # no answer of the blind probe
            found.minutes.setdefault(judge, Counter())[minute, int(answer.value["vote"])] += 1


def periods(minutes: Iterable[int]) -> dict[int, str]:
    """The name of each minute's period: its month; a tenth of the time, if all is of one month; {}: of one minute."""
    every = sorted(set(minutes))
    if len(every) < 2:
        return {}
    months = {minute: time.strftime("%Y-%m", time.gmtime(minute * _MINUTE)) for minute in every}
    if len(set(months.values())) > 1:
        return months
    first, length = every[0], (every[-1] - every[0] + 1) / PERIODS
    starts = {minute: first + int(int((minute - first) / length) * length) for minute in every}
    return {minute: time.strftime("%Y-%m-%d %H:%M", time.gmtime(start * _MINUTE)) for minute, start in starts.items()}
