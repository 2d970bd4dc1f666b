"""The wish list: task types in want of images, for whoever collects images. docs/taxonomy.md describes its JSON.

A wish has texts to search images by, and examples of images that the task type fits already. How many images it wants
is what it lacks of its target, divided by the samples that an image near it has given so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from heapq import nlargest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskgalaxy_ops.generation.coverage import Answered, Coverage, Numbers, answered, matches_of
from taskgalaxy_ops.operations.coverage import starving, why
from taskgalaxy_ops.progress import Silent
from taskgalaxy_ops.records import ImageId, TaskTypePath
from taskgalaxy_ops.taxonomy import label_text
from taskgalaxy_ops.workspace import Workspace

FORMAT = "taskgalaxy wish list"
VERSION = 1
_EXAMPLES = 3
# Images near a task type that count beside its own at the mean of all: one that has few is not judged by these alone.
_PRIOR = 10


@dataclass(frozen=True, slots=True)
class Example:
    """An image that a task type fits."""

    image: ImageId
    similarity: float  # cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A task type with fewer samples than its target."""

    task_type: TaskTypePath
    samples: int
    target: int
    matched: int  # images near it
    kept: int  # of these, those that it fits
    why: str  # what it has no samples for; "" where it has some
    images_wanted: int | None  # images near it that would fill it up; None: no image of any task type gave a sample
    queries: Sequence[str]  # texts to search images by, the most telling first
    fitted: Sequence[Example]  # nearest first


@dataclass(frozen=True, slots=True, kw_only=True)
class WishList:
    """What a store is in want of, worst first."""

    taxonomy: int
    encoder: str  # by whose similarity images are near task types
    k: int  # how many task types an image is near
    simulated: bool
    wishes: Sequence[Wish]

    def to_json(self) -> dict[str, Any]:
        """The form of the file."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def wishes(
    workspace: Workspace, coverage: Coverage, targets: Numbers, rows: Sequence[int], seen: Answered | None = None
) -> WishList:
    """The wishes of these task types (places in ``coverage.types``), in this order; those that have enough are left
    out. seen: what the coverage was counted of; None: it is read again. Raises EncoderError, DamageError.
    """
    lacks = starving(coverage.counts, targets)
    wanted = [row for row in rows if lacks[row]]
    fitted = _fitted(seen or answered(workspace.snapshot(), Silent()), [coverage.asked[row] for row in wanted])
    gives = samples_an_image(coverage)
    settings = workspace.settings
    return WishList(
        taxonomy=coverage.taxonomy,
        encoder=str(workspace.encoder_identity["name"]),
        k=settings.match.k,
        simulated=settings.simulated,
        wishes=[
            _wish(coverage, row, int(targets[row]), float(gives[row]), fitted, settings.encoder.templates)
            for row in wanted
        ],
    )


def samples_an_image(coverage: Coverage) -> NDArray[np.float64]:
    """By task type, (m,), the samples that an image near it gives: as so far, where few were near it as over all."""
    counts = coverage.counts
    matched = counts.matched.sum()
    mean = counts.samples.sum() / matched if matched else 0.0
    found: NDArray[np.float64] = (counts.samples + _PRIOR * mean) / (counts.matched + _PRIOR)
    return found


def _wish(
    coverage: Coverage,
    row: int,
    target: int,
    gives: float,
    fitted: dict[TaskTypePath, list[Example]],
    templates: Sequence[str],
) -> Wish:
    path, own = coverage.types[row], coverage.counts.sums([row])
    return Wish(
        task_type=path,
        samples=own["samples"],
        target=target,
        matched=own["matched"],
        kept=own["kept"],
        why=why(own),
        images_wanted=math.ceil((target - own["samples"]) / gives) if gives else None,
        queries=queries(path, templates),
        fitted=fitted.get(coverage.asked[row], ()),
    )


def queries(path: TaskTypePath, templates: Sequence[str]) -> list[str]:
    """Texts to search images by: the label, the label within its branch, and as the encoder is given it."""
    labels = path.split("~")
    text = label_text(path)
    encoded = [template.replace("{}", text) for template in templates] or [text]
    return list(dict.fromkeys([labels[-1], *([f"{labels[-2]}: {labels[-1]}"] if len(labels) > 1 else []), *encoded]))


def _fitted(seen: Answered, paths: Sequence[TaskTypePath]) -> dict[TaskTypePath, list[Example]]:
    """By task type, the nearest of the images that it fits."""
    results, computed = seen
    wanted, found = pa.array(paths, pa.string()), dict[TaskTypePath, list[Example]]()
    for shard in results.result.shards:
        relevant = results.columns(shard, "filter", "relevant", ("image", "task_type"))
        relevant = relevant.filter(pc.is_in(relevant["task_type"], wanted))
        if not len(relevant):
            continue
        near = matches_of(results, computed, shard, "similarity").join(
            relevant, ["image", "task_type"], join_type="inner", use_threads=False
        )
        for each in near.to_pylist():
            kept = [*found.get(each["task_type"], ()), Example(each["image"], each["similarity"])]
            found[each["task_type"]] = nlargest(_EXAMPLES, kept, key=lambda one: (one.similarity, one.image))
    return found
