"""Plan: what a run would compute and ask, for what reason, and what it would cost, before anything is spent.

The plan uses the run's own keys, request templates and code that finds units without an answer. It is exact for the
first stage that lacks answers. The units of later stages depend on those answers; for them it gives bounds, from none
of the asked units passing to all of them. The same holds for the vote, where the need of a further judge depends on the
votes before. What is expected between the bounds, and what a unit costs, rests on what is answered of the planned image
shards; where that is too little, on all sources' committed outputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.stage_keys import differences
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING, NAMES, STAGE, before
from taskgalaxy_ops.generation.target_run import StoreTargets
from taskgalaxy_ops.generation.targets import TargetCounts
from taskgalaxy_ops.generation.vote_rule import rule_of
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.operations.answered import ENOUGH
from taskgalaxy_ops.operations.release_outlook import ReleaseOutlook, look_ahead, look_through
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, store_state
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
    """A known number (``low`` = ``high``), or one between bounds; ``expected``: by the shares that passed so far."""

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


@dataclass(frozen=True, slots=True)
class Basis:
    """What a stage's share of passing units, its votes and its costs were measured on; no image: nothing is known."""

    images: int = 0
    shards: int = 0  # image shards
    elsewhere: bool = False  # these are of all sources, because the planned image shards have too few answers

    def __add__(self, other: Basis) -> Basis:
        return Basis(self.images + other.images, self.shards + other.shards, self.elsewhere or other.elsewhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A stage over all image shards of a plan. An amount is None if nothing was measured yet to estimate it from."""

    stage: str
    shards: int
    shards_there: int
    units_there: int  # images, matches, questions to write or votes that are done
    units: Bounds  # units that a run would encode, match or ask
    why: Mapping[str, int] = field(default_factory=dict)  # image shards without the stage's output, by what changed
    basis: Basis = Basis()
    requests: Bounds | None = None
    tokens: Bounds | None = None
    cost: Bounds | None = None  # USD
    list_cost: Bounds | None = None  # USD
    seconds: Bounds | None = None  # in one process


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do and cost, and what the next release would lose."""

    shards: int
    task_types: int
    stages: Sequence[StagePlan]
    outlook: ReleaseOutlook | None = None  # on the next release of all sources; None: there is none yet
    targets: TargetCounts | None = None  # how the task types stand now; None: the settings have no targets

    def total(self, name: str) -> Bounds | None:
        """``requests``, ``tokens``, ``cost``, ``list_cost`` or ``seconds`` of all stages; None if one is not known."""
        parts = [getattr(each, name) for each in self.stages]
        if name != "seconds":
            parts = [getattr(each, name) for each in self.stages if each.stage in ASKING]
        return None if None in parts else sum(parts, Bounds())


def plan(workspace: Workspace, sources: Sequence[str] | None = None, taxonomy: int | None = None) -> RunPlan:
    """What a run of these sources (None: all) would do now; asks no model, encodes no image, commits no stage output.

    taxonomy: a version; None: the newest. Of an image shard whose stage outputs are all committed it reads only
    listings and markers; of any other, its matches and journal. Task types without an embedding are encoded, because
    their matches depend on it. Where the next release may have fewer of the latest one's samples, which of them are
    read, too. Raises TaskGalaxyError.
    """
    view = workspace.snapshot()
    state = store_state(view, lanes.shards_of(view, sources), taxonomy)
    looked = look_through(view, state, [shard_state for shard_state in state.shards if not shard_state.settled])
    results = looked.results
    others = _others(view, state)
    summaries = marker_summaries(workspace.store, [*state.committed, *others.committed])
    measured = {stage: _measured(stage, state.shards, others.shards, summaries, results) for stage in NAMES}
    lacking = _lacking(view, state, results, measured)
    stages = [
        _estimated(
            StagePlan(
                stage=stage,
                shards=len(state.shards),
                shards_there=sum(_stage_output(stage, each, results) is not None for each in state.shards),
                units_there=sum(_units_there(stage, each, summaries, results) for each in state.shards),
                units=lacking[stage],
                why=_why(stage, state.shards, summaries, results),
                basis=measured[stage].basis,
            ),
            measured[stage],
            workspace.settings,
        )
        for stage in NAMES
    ]
    counts = state.targets.counts(state.types.ids) if state.targets else None
    return RunPlan(len(state.shards), len(state.types.ids), stages, look_ahead(view, state, looked), counts)


def _others(view: Workspace, state: StoreState) -> StoreState:
    """The image shards of live sources that are not planned, with the stage outputs that are committed."""
    planned = {each.shard.id for each in state.shards}
    there = [shard for shard in lanes.shards_of(view, None) if shard.id not in planned]
    return StoreState([ShardState(each, view.stage_outputs.committed(each.id), ()) for each in there], state.types)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What a stage took so far, over some image shards."""

    tally: Tally = field(default_factory=Tally)
    basis: Basis = Basis()
    units_in: int = 0
    units_out: int = 0
    cast: int = 0  # votes
    took: float = 0.0  # seconds, where it asks no model

    @property
    def passing(self) -> float:
        """The share of its units that came out; 1 if nothing is known."""
        return self.units_out / self.units_in if self.units_in else 1.0

    @property
    def votes(self) -> float:
        """Votes a pair; 0 if nothing is known."""
        return self.cast / self.units_in if self.units_in else 0.0

    @property
    def seconds(self) -> float | None:
        """Seconds a unit; None: nothing is known."""
        return self.took / self.units_in if self.units_in else None

    def __add__(self, other: _Measured) -> _Measured:
        tally = Tally()
        for part in (self.tally, other.tally):
            tally += part
        return _Measured(
            tally=tally,
            basis=self.basis + other.basis,
            units_in=self.units_in + other.units_in,
            units_out=self.units_out + other.units_out,
            cast=self.cast + other.cast,
            took=self.took + other.took,
        )


def _measured(
    stage: str,
    shards: Iterable[ShardState],
    others: Iterable[ShardState],
    summaries: Mapping[StageOutput, MarkerSummary],
    results: Mapping[str, ShardResult],
) -> _Measured:
    """What a stage took on the planned image shards; with the ``others`` where fewer than three images tell of it."""
    parts = (_measured_shard(stage, each, summaries, results.get(each.shard.id)) for each in shards)
    own = sum(parts, _Measured())
    if own.basis.images >= ENOUGH:
        return own
    elsewhere = sum((_measured_shard(stage, each, summaries, None) for each in others), _Measured())
    if not elsewhere.basis.images:
        return own
    both = own + elsewhere
    return replace(both, basis=replace(both.basis, elsewhere=True))


def _measured_shard(
    stage: str, shard_state: ShardState, summaries: Mapping[StageOutput, MarkerSummary], result: ShardResult | None
) -> _Measured:
    """What a stage took on one image shard. result: if it was looked through, with the answers of its journal."""
    former = [summaries[output] for output in shard_state.former(stage) if output in summaries]
    tally = Tally()
    if result is not None and result.asked is not None:
        tally += result.asked.get(stage, Tally())
    elif former:  # each marker has the tally of the image shard's journal when it was written: take the largest
        tally += max((Tally(**each.stats.get("asked", {})) for each in former), key=lambda each: each.calls)
    units_in = sum(each.stats["units_in"] for each in former)
    units_out = sum(each.stats["units_out"] for each in former)
    cast = sum(each.rows.get("votes", 0) for each in former)
    images = shard_state.shard.images.rows if units_in else 0
    made = result.stages.get(stage) if result else None
    if made and made.counts:
        units_in, units_out = units_in + made.counts.units_in - made.counts.pending, units_out + made.counts.units_out
        cast += len(made.rows.get("votes", ()))
        images = images or len({row.image for rows in made.rows.values() for row in rows if hasattr(row, "image")})
    return _Measured(
        tally=tally,
        basis=Basis(images, int(images > 0)),
        units_in=units_in,
        units_out=units_out,
        cast=cast,
        took=sum(each.stats["seconds"] for each in former),
    )


def _lacking(
    view: Workspace, state: StoreState, results: Mapping[str, ShardResult], measured: Mapping[str, _Measured]
) -> dict[str, Bounds]:
    """Units that a run would encode, match or ask, by stage."""
    units = dict.fromkeys(NAMES, Bounds())
    for shard_state in state.shards:
        images, live = shard_state.shard.images.rows, shard_state.live
        if "embed" not in shard_state.stage_outputs:
            units["embed"] += Bounds(images, images, images)
        if "match" not in shard_state.stage_outputs:
            units["match"] += Bounds(live, live, live)
        asked = _asked(view, shard_state, results.get(shard_state.shard.id), state.types, measured)
        for stage, bounds in zip(ASKING, asked, strict=True):
            units[stage] += bounds
    if state.targets is not None:
        return _with_targets(staged(view), state, state.targets, units, measured)
    return units


def _with_targets(
    settings: Settings,
    state: StoreState,
    targets: StoreTargets,
    units: dict[str, Bounds],
    measured: Mapping[str, _Measured],
) -> dict[str, Bounds]:
    """The units with what task types may come to take beside what they certainly do; at most all their tries.

    Images that have no embedding yet come before others, so that what is certain now need not be so with them.
    """
    ahead = [targets.ahead(each.shard.id) for each in state.shards]
    likely, most = sum(each for each, _ in ahead), sum(each for _, each in ahead)
    asked, cap = units["filter"], sum(targets.walk.targets.of(path).tries for path in state.types.ids)
    certain = all("embed" in each.stage_outputs for each in state.shards)
    filtered = Bounds(asked.low if certain else 0, min(asked.expected + likely, cap), min(asked.high + most, cap))
    # The stages after follow in proportion: what they have beside what waits for the filter is theirs already.
    beyond = Bounds(0, filtered.expected - asked.expected, filtered.high - asked.high)
    followed = _following(settings, beyond, measured, Bounds())
    found = {**units, "filter": filtered}
    for stage, more in zip(ASKING[1:], followed, strict=True):
        found[stage] = replace(units[stage] + more, low=units[stage].low if certain else 0)
    return found


def _asked(
    view: Workspace,
    shard_state: ShardState,
    result: ShardResult | None,
    types: EmbeddingMatrix,
    measured: Mapping[str, _Measured],
) -> tuple[Bounds, Bounds, Bounds]:
    """What a run would ask of an image shard in filter, write and vote."""
    settings = staged(view)
    judges, fewest = len(settings.judges), _fewest_votes(settings)
    # The share of the further judges' votes that were needed so far.
    beyond_quorum = (
        min(1.0, max(0.0, (_votes_a_pair(settings, measured) - fewest) / (judges - fewest))) if judges > fewest else 0.0
    )
    known = voted = most = 0
    written = Bounds()
    if shard_state.settled:
        return Bounds(), Bounds(), Bounds()
    if result is None:  # no embedding yet: of its matches, the number is certain where nothing but k bounds it
        matches = shard_state.live * min(settings.match.k, len(types.ids))
        # Answers that were given under another encoder may fit some of the matches.
        answered = bool(Journal(view.store, shard_state.shard.id).answers)
        fewer = answered or not settings.match.always_k
        filtered = Bounds(0 if fewer else matches, matches, matches)
    else:
        stages = result.stages
        known, certain = stages["filter"].missing, stages["write"].missing
        further = stages["write"].most - certain  # answers to questions that are not written yet
        written = Bounds(certain, certain + further * measured["write"].passing, certain + further)
        voted, most = stages["vote"].missing, stages["vote"].most
        if (made := stages["write"].counts) and made.pending:  # what hangs on questions that are not written yet
            swapped = _drawn_at_most(made.units_in, settings.write.swapped)
            most += swapped * len(settings.voters)
            most += _drawn_at_most(made.units_out + swapped, settings.vote.planted) * judges
        filtered = Bounds(known, known, known)
    writing, voting = _following(settings, filtered, measured, written)
    return filtered, writing, Bounds(voted, voted + (most - voted) * beyond_quorum, most) + voting


def _following(
    settings: Settings, filtered: Bounds, measured: Mapping[str, _Measured], written: Bounds
) -> tuple[Bounds, Bounds]:
    """What write and vote come to ask after these units of the filter, and ``written``, questions that it lets pass."""
    forms, further = settings.write.forms_a_match, settings.write.answers - 1
    passing = filtered.expected * measured["filter"].passing * forms * (1 + further * measured["write"].passing)
    writing = written + Bounds(0, passing, filtered.high * forms * (1 + further))
    asked = forms * (1 + further)  # of a fitting match; pairs with another image's question are asked for nowhere
    pairs = (writing.expected + writing.expected / asked * settings.write.swapped) * measured["write"].passing
    most = writing.high + _drawn_at_most(writing.high, settings.write.swapped)
    tries = settings.vote.blind.tries if settings.vote.blind else 0
    judges, planted = len(settings.judges), settings.vote.planted
    expected = pairs * (_votes_a_pair(settings, measured) + tries + planted * judges * measured["vote"].passing)
    return writing, Bounds(0, expected, most * (judges + tries) + _drawn_at_most(most, planted) * judges)


def _drawn_at_most(number: float, share: float) -> int:
    """How many of so many are drawn by hash; more are with a probability below one in a million."""
    return min(math.ceil(number), math.ceil(number * share + 5 * math.sqrt(number * share) + 5)) if share else 0


def _votes_a_pair(settings: Settings, measured: Mapping[str, _Measured]) -> float:
    """So far; at most the number of judges, which may be fewer now."""
    return min(measured["vote"].votes or _fewest_votes(settings), len(settings.judges))


def _fewest_votes(settings: Settings) -> int:
    """That may be enough for a verdict."""
    return rule_of(settings.vote, [judge.name for judge in settings.judges]).fewest


def _stage_output(stage: str, shard_state: ShardState, results: Mapping[str, ShardResult]) -> StageOutput | None:
    """A stage's committed output; also if the stage before is not committed, but gives the same result as before."""
    result = results.get(shard_state.shard.id)
    made = result.stages.get(stage) if result else None
    return made.stage_output if made else shard_state.stage_outputs.get(stage)


def _units_there(
    stage: str,
    shard_state: ShardState,
    summaries: Mapping[StageOutput, MarkerSummary],
    results: Mapping[str, ShardResult],
) -> int:
    if (stage_output := _stage_output(stage, shard_state, results)) is not None:
        summary = summaries.get(stage_output)
        return 0 if summary is None else summary.rows["votes"] if stage == "vote" else int(summary.stats["units_in"])
    result = results.get(shard_state.shard.id)
    made = result.stages.get(stage) if result else None
    if made is None or made.counts is None:
        return 0
    return len(made.rows["votes"]) if stage == "vote" else made.counts.units_in - made.counts.pending


def _why(
    stage: str,
    shards: Iterable[ShardState],
    summaries: Mapping[StageOutput, MarkerSummary],
    results: Mapping[str, ShardResult],
) -> dict[str, int]:
    """The numbers of image shards without the stage's output, by what changed since the nearest one that is there."""
    reasons: Counter[str] = Counter()
    for shard_state in shards:
        if _stage_output(stage, shard_state, results) is not None:
            continue
        result = results.get(shard_state.shard.id)
        key = result.stages[stage].key if result and stage in result.stages else shard_state.keys[stage]
        former = [
            summaries[stage_output].made_of for stage_output in shard_state.former(stage) if stage_output in summaries
        ]
        if not former:
            reasons[NO_SHARD] += 1
            continue
        changed = min((differences(key.made_of, each) for each in former if each), key=len, default=[])
        if key.key is None:
            changed = [*changed, f"waits for {before(stage)}"]
        reasons["; ".join(changed) or NOT_RECORDED] += 1
    return dict(reasons.most_common())


def _estimated(stage: StagePlan, measured: _Measured, settings: Settings) -> StagePlan:
    """The stage with requests, tokens, money and time, as far as something was measured."""
    tally, units = measured.tally, stage.units
    if stage.stage not in ASKING:
        seconds = None if measured.seconds is None and units.high else units.times(measured.seconds or 0)
        return replace(stage, seconds=seconds)
    if not units.high:
        none = Bounds()
        return replace(stage, requests=none, tokens=none, cost=none, list_cost=none, seconds=none)
    if not tally.units:
        return stage
    requests = Bounds(
        *(math.ceil(each * tally.calls / tally.units) for each in (units.low, units.expected, units.high))
    )
    models = settings.voters if STAGE[stage.stage].role == "judges" else [settings.teacher]
    slots = sum(model.concurrency for model in models)
    a_call = tally.seconds / max(1, tally.calls)  # none of write, where all was asked along with the filter's
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
