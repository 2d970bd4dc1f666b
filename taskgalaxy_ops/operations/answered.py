"""What is answered of each source, and what lacks an answer: forecasts and probes start from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import zip_longest

from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.operations.measure import Lacking, Measure, measure
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, has_journal, store_state
from taskgalaxy_ops.workspace import Workspace

ENOUGH = 3  # images: fewer give no usable variance
_SHARDS = 32  # finished image shards of a source that are read, and _IMAGES: what is read does not grow
_IMAGES = 2000


def whole(measures: Iterable[Measure]) -> int:
    """The number of these images that have all their answers."""
    return sum(each.whole for each in measures)


def enough(measures: Sequence[Measure]) -> bool:
    """Whether these images suffice to estimate all stages.

    After an interrupted run, the finished images may be only those that were rejected early: then they do not suffice.
    """
    finished = [each for each in measures if each.whole]
    still = [each for each in measures if not each.whole]
    writing = sum(each.needed[1] > 0 for each in finished) >= ENOUGH or not any(each.needed[1] for each in still)
    voting = sum(each.pairs > 0 for each in finished) >= ENOUGH or not any(each.pairs for each in still)
    return len(finished) >= ENOUGH and writing and voting


@dataclass(frozen=True, slots=True)
class Answered:
    """By source, what lacks an answer in the chosen image shards, and the measures of answered images.

    Where a chosen source has too few answers, the measures are also those of sources that were not chosen.
    """

    lacking: dict[str, Lacking] = field(default_factory=dict)
    measures: dict[str, list[Measure]] = field(default_factory=dict)

    def of(self, source: str) -> Sequence[Measure]:
        """The measures of a source's answered images."""
        return self.measures.get(source, ())

    @property
    def of_all(self) -> list[Measure]:
        """The measures of all sources' answered images."""
        return [each for some in self.measures.values() for each in some]

    def add(self, source: str, found: Iterable[Measure]) -> None:
        """Keep the measures of a source's images; of many, some that are drawn by hash."""
        kept = self.measures.setdefault(source, [])
        kept[:] = nsmallest(_IMAGES, [*kept, *found], key=lambda each: draw("forecast", each.image))

    @property
    def lacks_measures(self) -> bool:
        """Whether a source with images to ask about has too few answers of its own."""
        return any(there.images and not enough(self.of(source)) for source, there in self.lacking.items())


def answered(look: Workspace, sources: Sequence[str] | None = None, taxonomy: int | None = None) -> Answered:
    """What is answered, and lacks an answer, of these sources' image shards. One image shard in memory at a time.

    look: a snapshot of the workspace.
    """
    chosen = {shard.id for shard in lanes.shards_of(look, sources)}
    there = store_state(look, lanes.shards_of(look, None), taxonomy)
    origins, judges = look.registry.origins(), len(look.settings.voters)
    found = Answered()
    settled: dict[str, int] = {}
    for one in sorted(there.shards, key=_drawn):
        if one.shard.id not in chosen:
            continue
        source = origins[one.shard.id]
        left = found.lacking.setdefault(source, Lacking(judges=judges))
        if one.settled:
            settled[source] = settled.get(source, 0) + 1
            if settled[source] > _SHARDS:
                continue
        found.add(source, measure(look, there, one, left))
    if found.lacks_measures:
        _read_elsewhere(look, there, [one for one in there.shards if one.shard.id not in chosen], found)
    return found


def _read_elsewhere(look: Workspace, there: StoreState, others: Sequence[ShardState], found: Answered) -> None:
    """Add measures of image shards that were not chosen, of all sources in turn; as few as give a rough estimate."""
    origins, judges, images = look.registry.origins(), len(look.settings.voters), 0
    by_source: dict[str, list[ShardState]] = {}
    for one in sorted(others, key=lambda one: (not one.settled, _drawn(one))):  # the finished ones first
        if has_journal(look, one.shard.id):
            by_source.setdefault(origins[one.shard.id], []).append(one)
    for one in list(_in_turn(list(by_source.values())))[:_SHARDS]:
        measures = measure(look, there, one, Lacking(judges=judges))
        found.add(origins[one.shard.id], measures)
        images += whole(measures)
        if images >= _IMAGES:
            return


def _in_turn(groups: Sequence[Sequence[ShardState]]) -> Iterator[ShardState]:
    return (one for turn in zip_longest(*groups) for one in turn if one is not None)


def _drawn(one: ShardState) -> float:
    return draw("forecast", one.shard.id)
