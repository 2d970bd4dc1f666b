"""A probe: ask about a few images of a source, so that what a run would cost can be forecast.

They are drawn by hash from all of the source's image shards, and run like any other image: their answers are kept, and
no run asks about them again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.operations.answered import ENOUGH, Answered, answered, enough, whole
from taskgalaxy_ops.operations.measure import Measure
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Workspace

PROBE_SHARE = 0.05  # of a source's images, at most, where no number is given
PROBE_IMAGES = 100  # of a source, by default: if the cost of images varies by half, this gives it within a tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe asked."""

    images: Mapping[str, int]  # by source: the images that it asked about
    usage: Usage
    reasons: Sequence[str]  # why some of its requests have no answer


def probe(
    workspace: Workspace,
    images: int | None = None,
    sources: Sequence[str] | None = None,
    taxonomy: int | None = None,
    progress: Progress | None = None,
    wait: bool = True,
    only_needed: bool = False,
) -> Probed:
    """Ask about some images of each source that has fewer answered ones, as a run would.

    images: the number in all, divided equally among the sources; None: 100 of each source, at most one in twenty, at
    least one. wait: wait for batches, as long as the settings say. only_needed: leave out sources for which other
    sources' answers give a forecast and the images that may be asked about do not.
    """
    look = workspace.snapshot()
    found = answered(look, sources, taxonomy)
    open_sources = [source for source, there in sorted(found.lacking.items()) if there.images]
    origins, shards = look.registry.origins(), lanes.shards_of(look, sources)
    chosen: dict[str, set[ImageId]] = {}
    asked: Counter[str] = Counter()
    for source in open_sources:
        mine = [shard for shard in shards if origins[shard.id] == source]
        live = sum(shard.images.rows for shard in mine)
        wanted = max(1, min(PROBE_IMAGES, int(PROBE_SHARE * live)))
        if images is not None:
            wanted = math.ceil(images / len(open_sources))
        elif only_needed and _is_idle(found, wanted):
            continue
        measures = found.of(source)
        count = max(0, wanted - whole(measures))
        for shard, image in nsmallest(count, _open_images(look, mine, measures), key=_drawn):
            chosen.setdefault(shard, set()).add(image)
            asked[source] += 1
    result = pipeline.generate(
        workspace, pipeline.RunOptions(sources=sources, only=chosen, taxonomy=taxonomy, wait=wait), progress=progress
    )
    return Probed(images=dict(asked), usage=result.usage, reasons=result.reasons)


def _is_idle(found: Answered, wanted: int) -> bool:
    """Whether a forecast takes the answers of all sources even after a probe of ``wanted`` images of one."""
    return wanted < ENOUGH and enough(found.of_all)


def _drawn(image: tuple[str, ImageId]) -> float:
    return draw("probe", image[1])


def _open_images(
    look: Workspace, shards: Iterable[ImageShard], measured: Iterable[Measure]
) -> Iterator[tuple[str, ImageId]]:
    done = {each.image for each in measured if each.whole}
    for shard in shards:
        dead = set(look.registry.dead(shard))
        yield from ((shard.id, image) for image in look.registry.image_ids(shard) if image not in dead | done)
