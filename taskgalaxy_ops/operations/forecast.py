"""Forecast: what a run would cost, with an interval, estimated from answered images; and a check of it afterwards.

For each source, the answered images give the ratios of units from one stage to the next (the share of matches that fit,
of questions that become pairs, votes a pair by judge), and the cost of a unit at today's prices. Units without an
answer are counted exactly for an image's next stage, and estimated with these ratios for the stages after it. The
interval is a 95 % prediction interval: images are resampled with replacement (the bootstrap, Efron 1979), and the
variance is increased by that of the images that are still to be asked about.

Both ways of asking the teacher, `write.fused` and apart, are known from either: what is measured in the one is
converted to the other (fused_saving.py).

Where too few images of a source are answered, those of all sources count, also of sources that the run leaves out. As a
source may well differ from the others, the interval is then widened by the spread of the sources. Where all of them
together are too few, there is no forecast, and ``too_few`` says what is known. A probe (probe.py) asks about a few.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.operations.answered import Answered, answered, enough, whole
from taskgalaxy_ops.operations.measure import AMOUNTS, STEPS, Lacking, Measure
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace

# The standard deviation, as a share, of a source about the others where these are all that is known of it: at least. It
# is no measurement: with it the interval goes from next to nothing to twice the expected.
_UNLIKE = 0.5
_RESAMPLES = 400
_Z = 1.96  # 95 %

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An expected number, and its 95 % interval."""

    low: float = 0
    expected: float = 0
    high: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceForecast:
    """What is left to ask about the images of the image shards that a source's scans made."""

    source: str
    images: int  # images without all answers
    measured: int  # answered images from which it is estimated
    elsewhere: bool  # the measured images are of all sources, because this one has too few: the interval is wide
    units: Mapping[str, float]  # expected number, by stage, the vote's by judge
    tokens: Estimate
    cost: Estimate  # USD
    list_cost: Estimate  # USD
    variance: Mapping[str, float] = field(default_factory=dict, repr=False)  # of each amount
    fused_saves: Mapping[str, float] = field(default_factory=dict)  # of each amount, by write.fused, set or not


@dataclass(frozen=True, slots=True, kw_only=True)
class TooFew:
    """A source without a forecast, because too little is answered of it and of all others: what is known of it."""

    source: str
    left: int  # images without all answers
    answered: int  # images with all answers
    matches: int  # that the filter answered
    questions: int  # that are to be written for those that fit
    pairs: int
    most_units: int  # that a run can come to ask about it, if all passes
    most_cost: float | None  # USD, of these, by what a unit cost so far; None: one of a stage or a judge never did


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run would cost. ``unknown``: sources with too few answers, which are not included."""

    sources: Sequence[SourceForecast]
    unknown: Sequence[str]
    tokens: Estimate
    cost: Estimate  # USD
    list_cost: Estimate  # USD
    too_few: Sequence[TooFew] = ()  # what is known of the unknown ones
    fused_saves: Mapping[str, float] = field(default_factory=dict)  # of each amount, by write.fused, set or not
    fused: bool = False  # whether it is set


def forecast(workspace: Workspace, sources: Sequence[str] | None = None, taxonomy: int | None = None) -> Forecast:
    """What a run of these sources' image shards would cost now; asks nothing, and encodes no image."""
    look = workspace.snapshot()
    found = answered(look, sources, taxonomy)
    made, too_few = [], []
    for source, there in sorted(found.lacking.items()):
        own = found.of(source)
        if not there.images or enough(own):
            made.append(_forecast(look, source, there, own, None))
        elif enough(everything := found.of_all):
            others = [some for some in found.measures.values() if enough(some)]
            made.append(_forecast(look, source, there, everything, others))
        else:
            too_few.append(_too_few(look, source, found))
    totals = {
        name: _interval(
            sum(getattr(each, name).expected for each in made),
            sum(each.variance.get(name, 0.0) for each in made),
            min((each.measured for each in made if each.images), default=0),
        )
        for name in AMOUNTS
    }
    saves = {name: sum(each.fused_saves.get(name, 0.0) for each in made) for name in AMOUNTS}
    return Forecast(
        sources=made,
        unknown=[each.source for each in too_few],
        too_few=too_few,
        fused_saves=saves,
        fused=look.settings.write.fused,
        **totals,
    )


def _too_few(look: Workspace, source: str, found: Answered) -> TooFew:
    own, there = found.of(source), found.lacking[source]
    judges, rules = len(look.settings.voters), look.settings.write
    write = (there.write + there.filter * rules.forms_a_match) * rules.answers + there.further
    votes = [
        max(certain, there.open_pairs - voted) + write
        for certain, voted in zip(there.votes, there.open_votes, strict=True)
    ]
    if look.settings.vote.blind:
        votes[-1] *= look.settings.vote.blind.tries
    most = np.array([there.filter, write, *votes], float)
    return TooFew(
        source=source,
        left=there.images,
        answered=whole(own),
        matches=sum(each.units[0] for each in own),
        questions=sum(each.needed[1] for each in own),
        pairs=sum(each.pairs for each in own),
        most_units=int(most.sum()),
        most_cost=_cost_of(most, found.of_all, judges),
    )


def _cost_of(units: Array, measures: Sequence[Measure], judges: int) -> float | None:
    """What units by slot (filter, write, each judge) cost by what they cost so far; None: not known of one of them."""
    if not measures:
        return None
    sums, slots = np.array([each.row() for each in measures]).sum(axis=0), 2 + judges
    measured, first = (
        sums[STEPS + judges : STEPS + judges + slots],
        STEPS + judges + slots * (1 + AMOUNTS.index("cost")),
    )
    if (units[measured == 0] > 0).any():
        return None
    return float((units * _ratio(sums[first : first + slots], measured)).sum())


def _forecast(
    look: Workspace,
    source: str,
    there: Lacking,
    used: Sequence[Measure],
    others: Sequence[Sequence[Measure]] | None,
) -> SourceForecast:
    """What is left to ask of a source, by the images ``used``.

    others: None: they are the source's own; else the measures of each source that has enough, whose spread widens the
    interval.
    """
    names = ["filter", "write", *(f"vote, {judge.name}" for judge in look.settings.voters)]
    if not there.images:
        return SourceForecast(
            source=source,
            images=0,
            measured=whole(used),
            elsewhere=False,
            units={},
            tokens=Estimate(),
            cost=Estimate(),
            list_cost=Estimate(),
        )
    rows, fused = np.array([each.row() for each in used]), look.settings.write.fused
    units, amounts = _carried(there, rows.sum(axis=0, keepdims=True), len(names), fused)
    weights = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=_RESAMPLES)
    _, drawn = _carried(there, weights @ rows, len(names), fused)
    widened = len(rows) / (len(rows) - 1) * (1 + len(rows) / there.images)
    variance = {name: float(drawn[name].var() * widened) for name in AMOUNTS}
    if others is not None:
        spread = _spread(there, others, len(names), fused)
        for name in AMOUNTS:
            variance[name] += max(spread[name], (_UNLIKE * float(amounts[name][0])) ** 2)
    estimates = {name: _interval(float(amounts[name][0]), variance[name], whole(used)) for name in AMOUNTS}
    return SourceForecast(
        source=source,
        images=there.images,
        measured=whole(used),
        elsewhere=others is not None,
        units=dict(zip(names, (float(each) for each in units[0]), strict=True)),
        **estimates,
        variance=variance,
        fused_saves={name: float(saved[0]) for name, saved in _saved(there, rows.sum(axis=0, keepdims=True)).items()},
    )


def _carried(there: Lacking, sums: Array, slots: int, fused: bool) -> tuple[Array, dict[str, Array]]:
    """Units to be asked by slot (filter, write, each judge) (b, slots), and by name of the amount their cost (b,).

    sums: (b, width of `Measure.row`), the sums of the rows of b resamples of images. fused: whether verdicts and
    questions are asked for together.
    """
    judges = slots - 2
    filtered_done, write_needed, first_done, written_done, pairs, voted = sums[:, :STEPS].T
    votes, units = sums[:, STEPS : STEPS + judges], sums[:, STEPS + judges : STEPS + judges + slots]
    filtered = np.full(len(sums), float(there.filter))
    first = there.write + filtered * _ratio(write_needed, filtered_done)
    written = first + there.further + first * _ratio(written_done - first_done, first_done)
    made = written * _ratio(pairs, written_done)
    expected = [filtered, written]
    for judge in range(judges):
        each = _ratio(votes[:, judge], voted)
        further = np.maximum(there.votes[judge], there.open_pairs * each - there.open_votes[judge])
        expected.append(further + made * each)
    asked = np.stack(expected, axis=1)
    amounts = {}
    for number, name in enumerate(AMOUNTS):
        at = STEPS + judges + slots * (1 + number)
        amounts[name] = (asked * _ratio(sums[:, at : at + slots], units)).sum(axis=1)
    saved = _saved(there, sums) if fused else {}
    return asked, {name: np.maximum(0, amount - saved.get(name, 0)) for name, amount in amounts.items()}


def _saved(there: Lacking, sums: Array) -> dict[str, Array]:
    """What `write.fused` saves of each amount on the filter's units without an answer (b,); below 0: what it costs."""
    units, *saved = sums[:, -1 - len(AMOUNTS) :].T
    return {name: there.filter * _ratio(part, units) for name, part in zip(AMOUNTS, saved, strict=True)}


def _spread(there: Lacking, others: Sequence[Sequence[Measure]], slots: int, fused: bool) -> dict[str, float]:
    """The variance, by amount, of what ``there`` comes to by the measures of one source or another."""
    if len(others) < 2:
        return dict.fromkeys(AMOUNTS, 0.0)
    sums = np.array([np.sum([each.row() for each in some], axis=0) for some in others])
    _, amounts = _carried(there, sums, slots, fused)
    return {name: float(amounts[name].var(ddof=1) * (1 + 1 / len(others))) for name in AMOUNTS}


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _interval(expected: float, variance: float, measured: int) -> Estimate:
    """The 95 % interval by Student's t, from the first terms of its expansion about the normal (Cornish and Fisher)."""
    freedom = max(1, measured - 1)
    spread = (_Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)) * math.sqrt(
        variance
    )
    return Estimate(max(0.0, expected - spread), expected, expected + spread)


# --- what was spent since


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The latest forecast, and what was spent since on the same sources."""

    at: float
    sources: Sequence[str]
    tokens: Estimate
    cost: Estimate  # USD
    list_cost: Estimate  # USD
    spent_tokens: int
    spent: float  # USD
    spent_list: float  # USD, at list prices


def record(workspace: Workspace, made: Forecast) -> None:
    """Store a forecast with what was spent so far, so that it can be checked afterwards.

    A forecast of nothing (all is answered, or too little is known) is not stored: the one before stays the latest.
    """
    if not any(each.images for each in made.sources):
        return
    Log(workspace.store, keys.FORECASTS_LOG).append(
        {
            "at": round(time.time(), 3),
            "sources": _counted(workspace, [each.source for each in made.sources], listed=made.list_cost != made.cost),
            "cost": asdict(made.cost),
            "list_cost": asdict(made.list_cost),
            "tokens": asdict(made.tokens),
            "unknown": list(made.unknown),
        }
    )


def checked(workspace: Workspace) -> Checked | None:
    """The latest forecast against what was spent; None where none was made."""
    if not (entries := Log(workspace.store, keys.FORECASTS_LOG).read()):
        return None
    body = entries[-1].body
    then = body["sources"]
    listed = any("list_cost" in each for each in then.values())
    now = _counted(workspace, list(then), listed=listed)
    spent = {
        name: sum(now[source].get(name, 0) - then[source].get(name, 0) for source in then)
        for name in ("cost", "list_cost", "tokens")
    }
    return Checked(
        at=body["at"],
        sources=list(then),
        tokens=Estimate(**body["tokens"]),
        cost=Estimate(**body["cost"]),
        list_cost=Estimate(**body["list_cost" if listed else "cost"]),
        spent_tokens=spent["tokens"],
        spent=spent["cost"] / NANO,
        spent_list=spent["list_cost" if listed else "cost"] / NANO,
    )


def _counted(workspace: Workspace, sources: Sequence[str], *, listed: bool) -> dict[str, dict[str, int]]:
    """By source, tokens and cost by the ledger, and, if ``listed``, the list cost by the journals; nano-dollars."""
    ledger, paid = workspace.ledger(), bill(workspace).by_source if listed else {}
    found = {}
    for source in sources:
        spent = ledger.spent(("source", source))
        found[source] = {"cost": spent.cost, "tokens": spent.tokens}
        if listed:
            found[source]["list_cost"] = paid.get(source, Tally()).list_cost
    return found
