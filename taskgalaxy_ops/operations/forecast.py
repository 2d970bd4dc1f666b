"""Forecast: what a run would cost, with an interval, estimated from answered images; and a check of it afterwards.

For each source, the answered images give the ratios of units from one stage to the next (the share of matches that fit,
of questions that become pairs, votes a pair by judge), and the cost of a unit at today's prices. Units without an
answer are counted exactly for an image's next stage, and estimated with these ratios for the stages after it. The
interval is a 95 % prediction interval: images are resampled with replacement (the bootstrap, Efron 1979), and the
variance is increased by that of the images that are still to be asked about.

Where too few images of a source are answered, a probe asks about some, drawn by hash from all of its image shards. It
runs them like any other image: their answers are kept, and no run asks about them again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import nsmallest
from typing import Any

import numpy as np
import numpy.typing as npt

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.operations.measure import AMOUNTS, Lacking, Measure, measure
from taskgalaxy_ops.operations.shard_state import store_state
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace

PROBE_SHARE = 0.05  # of a source's images, at most
PROBE_IMAGES = 100  # of a source, by default: if the cost of images varies by half, this gives it within a tenth
_ENOUGH = 3  # images: fewer give no usable variance
_MEASURED_SHARDS = (
    32  # settled image shards of a source that are read, and _MEASURED_IMAGES: what is read does not grow
)
_MEASURED_IMAGES = 2000
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
    elsewhere: bool  # the measured images are of all sources, because this one has too few
    units: Mapping[str, float]  # expected number, by stage, the vote's by judge
    tokens: Estimate
    cost: Estimate  # USD
    list_cost: Estimate  # USD
    variance: Mapping[str, float] = field(default_factory=dict, repr=False)  # of each amount


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would cost. ``unknown``: sources with too few answers, which are not included."""

    sources: Sequence[SourceForecast]
    unknown: Sequence[str]
    tokens: Estimate
    cost: Estimate  # USD
    list_cost: Estimate  # USD


def forecast(workspace: Workspace, sources: Sequence[str] | None = None, taxonomy: int | None = None) -> Forecast:
    """What a run of these sources' image shards would cost now; asks nothing, and encodes no image."""
    look = workspace.snapshot()
    lacking, measures = _state(look, sources, taxonomy)
    everything = [each for some in measures.values() for each in some]
    made, unknown = [], []
    for source, there in sorted(lacking.items()):
        own = measures.get(source, [])
        used = own if _enough(own) else everything
        if there.images and not _enough(used):
            unknown.append(source)
        else:
            made.append(_forecast(look, source, there, used, used is not own))
    totals = {
        name: _interval(
            sum(getattr(each, name).expected for each in made),
            sum(each.variance.get(name, 0.0) for each in made),
            min((each.measured for each in made if each.images), default=0),
        )
        for name in AMOUNTS
    }
    return Forecast(made, unknown, **totals)


def _whole(measures: Sequence[Measure]) -> int:
    return sum(each.whole for each in measures)


def _enough(measures: Sequence[Measure]) -> bool:
    """Whether these images suffice to estimate all stages.

    After an interrupted run, the finished images may be only those that were rejected early: then they do not suffice.
    """
    whole = [each for each in measures if each.whole]
    still = [each for each in measures if not each.whole]
    writing = sum(each.needed[1] > 0 for each in whole) >= _ENOUGH or not any(each.needed[1] for each in still)
    voting = sum(each.pairs > 0 for each in whole) >= _ENOUGH or not any(each.pairs for each in still)
    return len(whole) >= _ENOUGH and writing and voting


def _state(
    look: Workspace, sources: Sequence[str] | None, taxonomy: int | None
) -> tuple[dict[str, Lacking], dict[str, list[Measure]]]:
    """By source, what lacks an answer, and the measures of its answered images. One image shard in memory at a time."""
    there = store_state(look, lanes.shards_of(look, sources), taxonomy)
    origins = look.registry.origins()
    lacking: dict[str, Lacking] = {}
    measures: dict[str, list[Measure]] = {}
    settled: dict[str, int] = {}
    for one in sorted(there.shards, key=lambda one: draw("forecast", one.shard.id)):
        source = origins[one.shard.id]
        left = lacking.setdefault(source, Lacking(judges=len(look.settings.judges)))
        if one.settled:
            settled[source] = settled.get(source, 0) + 1
            if settled[source] > _MEASURED_SHARDS:
                continue
        found = measure(look, there, one, left)
        kept = measures.setdefault(source, [])
        kept[:] = nsmallest(_MEASURED_IMAGES, [*kept, *found], key=lambda each: draw("forecast", each.image))
    return lacking, measures


def _forecast(look: Workspace, source: str, there: Lacking, used: Sequence[Measure], elsewhere: bool) -> SourceForecast:
    names = ["filter", "write", *(f"vote, {judge.name}" for judge in look.settings.judges)]
    if not there.images:
        return SourceForecast(
            source=source,
            images=0,
            measured=_whole(used),
            elsewhere=elsewhere,
            units={},
            tokens=Estimate(),
            cost=Estimate(),
            list_cost=Estimate(),
        )
    rows = np.array([each.row() for each in used])
    units, amounts = _carried(there, rows.sum(axis=0, keepdims=True), len(names))
    weights = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=_RESAMPLES)
    _, drawn = _carried(there, weights @ rows, len(names))
    widened = len(rows) / (len(rows) - 1) * (1 + len(rows) / there.images)
    variance = {name: float(drawn[name].var() * widened) for name in AMOUNTS}
    estimates = {name: _interval(float(amounts[name][0]), variance[name], _whole(used)) for name in AMOUNTS}
    return SourceForecast(
        source=source,
        images=there.images,
        measured=_whole(used),
        elsewhere=elsewhere,
        units=dict(zip(names, (float(each) for each in units[0]), strict=True)),
        **estimates,
        variance=variance,
    )


def _carried(there: Lacking, sums: Array, slots: int) -> tuple[Array, dict[str, Array]]:
    """Units to be asked by slot (filter, write, each judge) (b, slots), and by name of the amount their cost (b,).

    sums: (b, width of `Measure.row`), the sums of the rows of b resamples of images.
    """
    judges = slots - 2
    filtered_done, write_needed, written_done, pairs, voted = sums[:, :5].T
    votes, units = sums[:, 5 : 5 + judges], sums[:, 5 + judges : 5 + judges + slots]
    filtered = np.full(len(sums), float(there.filter))
    written = there.write + filtered * _ratio(write_needed, filtered_done)
    made = written * _ratio(pairs, written_done)
    expected = [filtered, written]
    for judge in range(judges):
        each = _ratio(votes[:, judge], voted)
        further = np.maximum(there.votes[judge], there.open_pairs * each - there.open_votes[judge])
        expected.append(further + made * each)
    asked = np.stack(expected, axis=1)
    amounts = {}
    for number, name in enumerate(AMOUNTS):
        first = 5 + judges + slots * (1 + number)
        amounts[name] = (asked * _ratio(sums[:, first : first + slots], units)).sum(axis=1)
    return asked, amounts


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _interval(expected: float, variance: float, measured: int) -> Estimate:
    """The 95 % interval by Student's t, from the first terms of its expansion about the normal (Cornish and Fisher)."""
    freedom = max(1, measured - 1)
    spread = (_Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)) * math.sqrt(
        variance
    )
    return Estimate(max(0.0, expected - spread), expected, expected + spread)


# --- a probe


def probe(
    workspace: Workspace,
    images: int | None = None,
    sources: Sequence[str] | None = None,
    taxonomy: int | None = None,
    progress: Progress | None = None,
    wait: bool = True,
) -> pipeline.RunResult:
    """Ask about some images of each source that has fewer answered ones, as a run would; at most one in twenty.

    images: the number in all, divided equally among the sources; None: 100 of each source. wait: wait for batches, as
    long as the settings say.
    """
    look = workspace.snapshot()
    lacking, measures = _state(look, sources, taxonomy)
    open_sources = [source for source, there in sorted(lacking.items()) if there.images]
    each = PROBE_IMAGES if images is None else math.ceil(images / max(1, len(open_sources)))
    origins = look.registry.origins()
    shards = lanes.shards_of(look, sources)
    chosen: dict[str, set[ImageId]] = {}
    for source in open_sources:
        mine = [shard for shard in shards if origins[shard.id] == source]
        live = sum(shard.images.rows for shard in mine)
        count = min(each, max(1, int(PROBE_SHARE * live))) - _whole(measures.get(source, ()))
        for shard, image in nsmallest(max(0, count), _open_images(look, mine, measures.get(source, ())), key=_drawn):
            chosen.setdefault(shard, set()).add(image)
    return pipeline.generate(
        workspace, pipeline.RunOptions(sources=sources, only=chosen, taxonomy=taxonomy, wait=wait), progress=progress
    )


def _drawn(image: tuple[str, ImageId]) -> float:
    return draw("probe", image[1])


def _open_images(look: Workspace, shards: Sequence[Any], measured: Sequence[Measure]) -> Iterator[tuple[str, ImageId]]:
    done = {each.image for each in measured if each.whole}
    for shard in shards:
        dead = set(look.registry.dead(shard))
        yield from ((shard.id, image) for image in look.registry.image_ids(shard) if image not in dead | done)


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
