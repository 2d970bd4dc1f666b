"""Plan: what a run would make and ask, why, and what it would take, before anything is spent.

The keys, the questions and the code that finds what lacks an answer are the run's own. Exact for the first stage that
lacks answers; of those behind it, whose units depend on them, it gives bounds: none of what is asked passes, all of it
does. So for the vote, too: whether a further judge is needed depends on the ones before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation import run as generation_run
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.stage_keys import differences
from taskgalaxy_ops.generation.stages import ASKING, NAMES, STAGE, before
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, matched, store_state
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.marker_index import MarkerSummary, marker_summaries
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace

NO_SHARD = "no shard yet"
NOT_RECORDED = "not recorded: made by an older version"


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number that is known (``low`` = ``high``), or lies between two; ``expected``: as shares were so far."""

    low: float = 0
    expected: float = 0
    high: float = 0

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def times(self, factor: float) -> Bounds:
        return Bounds(self.low * factor, self.expected * factor, self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A stage over all image shards of a plan. None: nothing was measured yet that would tell."""

    stage: str
    shards: int
    shards_there: int
    units_there: int  # images, matches, questions to write, votes that need nothing more
    units: Bounds  # those that a run would encode, match or ask
    why: Mapping[str, int] = field(default_factory=dict)  # shards that are not there, by what changed
    requests: Bounds | None = None
    tokens: Bounds | None = None
    cost: Bounds | None = None  # USD
    list_cost: Bounds | None = None  # USD
    seconds: Bounds | None = None  # in one process


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would come to."""

    shards: int
    task_types: int
    stages: Sequence[StagePlan]

    def total(self, name: str) -> Bounds | None:
        """``requests``, ``tokens``, ``cost``, ``list_cost`` or ``seconds`` of all stages; None if one is not known."""
        parts = [getattr(each, name) for each in self.stages]
        if name != "seconds":
            parts = [getattr(each, name) for each in self.stages if each.stage in ASKING]
        return None if None in parts else sum(parts, Bounds())


def plan(workspace: Workspace, sources: Sequence[str] | None = None, taxonomy: int | None = None) -> RunPlan:
    """What a run of these sources would do now; asks nothing, encodes no image and commits no shard.

    Reads nothing but listings and logs where all is there; of an image shard whose shards are not, its matches and
    journal. Task types without an embedding are encoded: without it nobody knows what they match. Raises
    TaskGalaxyError.
    """
    look = workspace.snapshot()
    there = store_state(look, lanes.shards_of(look, sources), taxonomy)
    matches, computed = matched(look, there, [one for one in there.shards if not one.settled])
    results = {each.id: each for each in generation_run.look_through(look, matches, there.by_shard, computed).shards}
    told = marker_summaries(workspace.store, there.committed)
    measured = {stage: _measured(stage, there.shards, told, results) for stage in NAMES}
    lacking = _lacking(look, there, results, measured)
    stages = [
        _estimated(
            StagePlan(
                stage=stage,
                shards=len(there.shards),
                shards_there=sum(_stage_output(stage, one, results) is not None for one in there.shards),
                units_there=sum(_units_there(stage, one, told, results) for one in there.shards),
                units=lacking[stage],
                why=_why(stage, there.shards, told, results),
            ),
            measured[stage],
            workspace.settings,
        )
        for stage in NAMES
    ]
    return RunPlan(len(there.shards), len(there.types.ids), stages)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a stage came to so far."""

    tally: Tally
    passing: float  # share of what went in that came out; 1 where nothing is known
    votes: float  # votes a pair
    seconds: float | None  # a unit, of stages that ask nobody


def _measured(
    stage: str,
    shards: Iterable[ShardState],
    told: Mapping[StageOutput, MarkerSummary],
    results: Mapping[str, ShardResult],
) -> _Measured:
    tally = Tally()
    units_in = units_out = votes = 0
    seconds = 0.0
    for one in shards:
        found = [told[stage_output] for stage_output in one.former(stage) if stage_output in told]
        result = results.get(one.shard.id)
        if result is not None and result.asked is not None:
            tally += result.asked.get(stage, Tally())
        elif found:  # each marker holds what its image shard's journal held by then
            tally += max((Tally(**each.stats.get("asked", {})) for each in found), key=lambda each: each.calls)
        for each in found:
            units_in, units_out = units_in + each.stats["units_in"], units_out + each.stats["units_out"]
            votes, seconds = votes + each.rows.get("votes", 0), seconds + each.stats["seconds"]
        if result is not None and stage in result.stages and (counts := result.stages[stage].counts):
            units_in, units_out = units_in + counts.units_in - counts.pending, units_out + counts.units_out
            votes += len(result.stages[stage].rows.get("votes", ()))
    return _Measured(
        tally,
        units_out / units_in if units_in else 1.0,
        votes / units_in if units_in else 0.0,
        seconds / units_in if units_in else None,
    )


def _lacking(
    look: Workspace, there: StoreState, results: Mapping[str, ShardResult], measured: Mapping[str, _Measured]
) -> dict[str, Bounds]:
    """Units that a run would encode, match or ask, by stage."""
    found = dict.fromkeys(NAMES, Bounds())
    for one in there.shards:
        images, live = one.shard.images.rows, one.live
        if "embed" not in one.stage_outputs:
            found["embed"] += Bounds(images, images, images)
        if "match" not in one.stage_outputs:
            found["match"] += Bounds(live, live, live)
        asked = _asked(look, one, results.get(one.shard.id), there.types, measured)
        for stage, bounds in zip(ASKING, asked, strict=True):
            found[stage] += bounds
    return found


def _asked(
    look: Workspace,
    one: ShardState,
    result: ShardResult | None,
    types: EmbeddingMatrix,
    measured: Mapping[str, _Measured],
) -> tuple[Bounds, Bounds, Bounds]:
    """What a run would ask of an image shard in filter, write and vote."""
    settings = look.settings
    variants, judges = len(settings.write.variants), len(settings.judges)
    quorum = settings.vote.quorum
    a_pair = min(measured["vote"].votes or quorum, judges)  # fewer judges than before give fewer votes
    # Of what the first judges' votes may make needed, the share that they did so far.
    further = min(1.0, max(0.0, (a_pair - quorum) / (judges - quorum))) if judges > quorum else 0.0
    known = written = voted = most = 0
    if one.settled:
        return Bounds(), Bounds(), Bounds()
    if result is None:  # no embedding yet: how many matches there will be is certain, not which
        matches = one.live * min(settings.match.k, len(types.ids))
        answered = bool(Journal(look.store, one.shard.id).answers)  # under another encoder: some of them may do
        filtered = Bounds(0 if answered else matches, matches, matches)
    else:
        stages = result.stages
        known, written = stages["filter"].missing, stages["write"].missing
        voted, most = stages["vote"].missing, stages["vote"].most
        filtered = Bounds(known, known, known)
    passing = filtered.expected * measured["filter"].passing * variants
    writing = Bounds(written, written + passing, written + filtered.high * variants)
    voting = Bounds(
        voted,
        voted + (most - voted) * further + writing.expected * measured["write"].passing * a_pair,
        most + writing.high * judges,
    )
    return filtered, writing, voting


def _stage_output(stage: str, one: ShardState, results: Mapping[str, ShardResult]) -> StageOutput | None:
    """A stage's shard, also behind a stage that is not there, but comes out as it was."""
    result = results.get(one.shard.id)
    made = result.stages.get(stage) if result else None
    return made.stage_output if made else one.stage_outputs.get(stage)


def _units_there(
    stage: str, one: ShardState, told: Mapping[StageOutput, MarkerSummary], results: Mapping[str, ShardResult]
) -> int:
    if (stage_output := _stage_output(stage, one, results)) is not None:
        digest = told.get(stage_output)
        return 0 if digest is None else digest.rows["votes"] if stage == "vote" else int(digest.stats["units_in"])
    result = results.get(one.shard.id)
    made = result.stages.get(stage) if result else None
    if made is None or made.counts is None:
        return 0
    return len(made.rows["votes"]) if stage == "vote" else made.counts.units_in - made.counts.pending


def _why(
    stage: str,
    shards: Iterable[ShardState],
    told: Mapping[StageOutput, MarkerSummary],
    results: Mapping[str, ShardResult],
) -> dict[str, int]:
    """Shards that are not there, by what sets them apart from the nearest that is."""
    found: Counter[str] = Counter()
    for one in shards:
        if _stage_output(stage, one, results) is not None:
            continue
        result = results.get(one.shard.id)
        key = result.stages[stage].key if result and stage in result.stages else one.keys[stage]
        former = [told[stage_output].made_of for stage_output in one.former(stage) if stage_output in told]
        if not former:
            found[NO_SHARD] += 1
            continue
        changed = min((differences(key.made_of, each) for each in former if each), key=len, default=[])
        if key.key is None:
            changed = [*changed, f"waits for {before(stage)}"]
        found["; ".join(changed) or NOT_RECORDED] += 1
    return dict(found.most_common())


def _estimated(stage: StagePlan, measured: _Measured, settings: Settings) -> StagePlan:
    """With requests, tokens, money and time, as far as something was measured."""
    tally, units = measured.tally, stage.units
    if stage.stage not in ASKING:
        seconds = None if measured.seconds is None and units.high else units.times(measured.seconds or 0)
        return replace(stage, seconds=seconds)
    if not units.high:
        none = Bounds()
        return replace(stage, requests=none, tokens=none, cost=none, list_cost=none, seconds=none)
    if not tally.calls or not tally.units:
        return stage
    requests = Bounds(
        *(math.ceil(each * tally.calls / tally.units) for each in (units.low, units.expected, units.high))
    )
    models = settings.judges if STAGE[stage.stage].role == "judges" else [settings.teacher]
    slots = sum(model.concurrency for model in models)
    a_call = tally.seconds / tally.calls
    seconds = Bounds(
        *(each * a_call / max(1, min(slots, each)) for each in (requests.low, requests.expected, requests.high))
    )
    return replace(
        stage,
        requests=requests,
        tokens=units.times(tally.tokens / tally.units),
        cost=units.times(tally.cost / tally.units / NANO),
        list_cost=units.times(tally.list_cost / tally.units / NANO),
        seconds=seconds,
    )
