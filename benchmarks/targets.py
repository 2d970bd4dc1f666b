"""What targets save, and what more task types cost. ``python -m benchmarks.targets``; part of ``make bench-taxonomy``.

A store of 20,000 images runs in this process. Answers are drawn by hash, at a rate of each task type's own, without a
server. ``SCALE=0.1`` takes a tenth of the images; arguments choose figures: targets, types.

``targets.waste`` compares the units that a run asks with those of a loop that asks one at a time in the same order and
stops at the target. ``targets.met`` is the share that reached their target of the task types that can: those of which
as many images as they may try give enough samples. ``taxonomy.types_cost`` is what the filter is asked after 1,000 task
types came, against the pairs that entered the nearest ones of an image.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from benchmarks import material, running
from benchmarks.figures import Book, Figure
from benchmarks.step import keep, peak_memory
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import run as generation_run
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Match
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore

IMAGES = 20_000
TYPES = 300  # some 670 candidates each
BASE_TYPES, NEW_TYPES = 2_000, 1_000  # of ``types``
TARGETS = {"samples": 50, "tries": 120}
QUORUM = 2
_WROTE, _VOTED = 0.95, 0.9  # shares of questions that are written, and of votes for a pair


def rate(task_type: str) -> float:
    """The share of a task type's images that fit: from next to none to nearly all."""
    return 0.05 + 0.93 * draw("rate", task_type)


def fits(image: str, task_type: str) -> bool:
    return draw("fits", image, task_type) < rate(task_type)


def writes(image: str, task_type: str) -> bool:
    return draw("writes", image, task_type) < _WROTE


def votes(judge: str, image: str, task_type: str) -> int:
    return int(draw("votes", judge, image, task_type) < _VOTED)


class Drawn(Gateway):
    """A gateway that answers at once by the functions above, and counts the units."""

    units: ClassVar[Counter[str]] = Counter()  # by stage; of all gateways

    async def ask(self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        Drawn.units[template.stage] += len(units)
        entries = [
            {"index": number, **self.entry(template, unit.image or "", unit.item["task_type"])}
            for number, unit in enumerate(units, 1)
        ]
        keep(template, units, {template.replies: entries}, context)

    @staticmethod
    def entry(template: RequestTemplate, image: str, task_type: str) -> dict[str, Any]:
        """What the model answers about a unit."""
        if template.stage == "filter":
            return {"fits": fits(image, task_type), "reason": "drawn"}
        if template.stage == "write":
            text = f"What of {task_type}?" if writes(image, task_type) else ""
            return {"question": text, "answer": text and "This.", "reasoning": ""}
        return {"vote": votes(template.model.name, image, task_type), "reason": "drawn"}


class Bench:
    """One run of the benchmark: its folder and the book that it reports to."""

    def __init__(self, book: Book, folder: Path, scale: float) -> None:
        self.book, self.folder, self.images = book, folder, max(200, round(IMAGES * scale))

    def store(self, name: str, types: int, **changes: Any) -> material.BenchWorkspace:
        """A new store with the images and that many task types."""
        source = self.folder / "images"
        if not source.exists():
            material.images(source, 0, self.images)
        url = (self.folder / "stores" / name).as_uri()
        changes = {"vote": {"quorum": QUORUM, "audit_share": 0}, **changes}
        workspace = material.BenchWorkspace.open(material.settings(url, source, "http://127.0.0.1:9/v1", **changes))
        assert isinstance(workspace, material.BenchWorkspace)
        TaxonomyStore(workspace).publish(None, add_types((), material.task_types(0, types)), [], "hand")
        pipeline.ingest(workspace, "images")
        return workspace


def targets(bench: Bench) -> None:
    """Run a store with targets, and compare with asking one at a time."""
    workspace = bench.store("targets", max(4, round(TYPES * bench.images / IMAGES)), targets=TARGETS)
    began, asked = time.monotonic(), Drawn.units.copy()
    result = pipeline.generate(workspace)
    seconds = time.monotonic() - began
    asked = Drawn.units - asked
    found = RunResults(workspace, result)
    if result.pending or found.targets is None:
        raise SystemExit(f"{result.pending} units are pending: {result.reasons}")
    judges = [judge.name for judge in workspace.settings.judges]
    alone: Counter[str] = Counter()
    given = Counter(sample.task_type for sample in found.samples)
    can = met = 0
    for task_type, images in _in_order(workspace, result).items():
        samples = _one_at_a_time(task_type, images, judges, alone)
        if samples != given[task_type]:
            raise SystemExit(f"{task_type}: {given[task_type]} samples, not {samples}")
        can += samples >= TARGETS["samples"]
        met += given[task_type] >= TARGETS["samples"]
    detail: dict[str, Any] = {"images": bench.images, "types": dict(found.targets.types), "seconds": round(seconds, 1)}
    detail |= {"samples": given.total(), "peak_GB": round(peak_memory() / 1e9, 2)}
    detail |= {"asked": dict(asked), "one_at_a_time": dict(alone)}
    bench.book.add(Figure("targets.waste", round(asked.total() / alone.total(), 4), 1.25, "lower", detail))
    bench.book.add(Figure("targets.met", met / can, 0.99, "higher", {"can": can, "met": met, **detail}))
    _again(workspace)


def _again(workspace: material.BenchWorkspace) -> None:
    """A second run asks nothing. Raises SystemExit if it does."""
    before = Drawn.units.total()
    began = time.monotonic()
    pipeline.generate(workspace)
    if Drawn.units.total() != before:
        raise SystemExit("a second run asked")
    print(f"a second run: {time.monotonic() - began:.1f} s", flush=True)


def _in_order(workspace: material.BenchWorkspace, result: pipeline.RunResult) -> dict[str, list[str]]:
    """The images of each task type in the order in which they are tried."""
    rows = (
        match for output in result.matches.values() for match in workspace.stage_outputs.load(output, "matches", Match)
    )
    found: dict[str, list[str]] = {}
    for match in rows:
        found.setdefault(match.task_type, []).append(match.image)
    return {path: sorted(images, key=lambda image: draw("target", image)) for path, images in found.items()}


def _one_at_a_time(task_type: str, images: Sequence[str], judges: Sequence[str], asked: Counter[str]) -> int:
    """Ask about one image after the other until there are enough samples; returns their number.

    asked: gets the units by stage.
    """
    samples = 0
    for image in images[: TARGETS["tries"]]:
        if samples == TARGETS["samples"]:
            break
        asked["filter"] += 1
        if not fits(image, task_type):
            continue
        asked["write"] += 1
        if not writes(image, task_type):
            continue
        approvals = refusals = 0
        for judge in judges:
            if approvals == QUORUM or refusals > len(judges) - QUORUM:
                break
            asked["vote"] += 1
            vote = votes(judge, image, task_type)
            approvals, refusals = approvals + vote, refusals + 1 - vote
        samples += approvals == QUORUM
    return samples


def types(bench: Bench) -> None:
    """Measure what the filter is asked once there are more task types."""
    workspace = bench.store("types", BASE_TYPES)
    filtering = pipeline.RunOptions(last_stage="filter")
    before = _pairs(workspace, pipeline.generate(workspace, filtering))
    taxonomy_store = TaxonomyStore(workspace)
    base = taxonomy_store.version()
    new = material.task_types(BASE_TYPES, BASE_TYPES + NEW_TYPES)
    taxonomy_store.publish(base.number, add_types(base.nodes, new), [], "hand")
    asked, began = Drawn.units["filter"], time.monotonic()
    result = pipeline.generate(workspace, filtering)
    asked = Drawn.units["filter"] - asked
    entered = len(_pairs(workspace, result) - before)
    detail: dict[str, Any] = {"images": bench.images, "types": BASE_TYPES, "new_types": NEW_TYPES, "entered": entered}
    detail |= {"filter_units": asked, "seconds": round(time.monotonic() - began, 1)}
    bench.book.add(Figure("taxonomy.types_cost", asked / entered, 1.0, "lower", detail))


def _pairs(workspace: material.BenchWorkspace, result: pipeline.RunResult) -> set[tuple[str, str]]:
    return {(image, path) for path, images in _in_order(workspace, result).items() for image in images}


FIGURES: Mapping[str, Callable[[Bench], None]] = {figure.__name__: figure for figure in (targets, types)}


def measure(book: Book, folder: Path, scale: float, chosen: Sequence[str] = ()) -> None:
    """Measure the chosen figures, by default all."""
    with patch.object(generation_run, "Gateway", Drawn):
        running.measure(FIGURES, chosen, Bench(book, folder, scale))


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    with running.folder("targets", FIGURES, chosen) as folder:
        measure(Book("taxonomy"), folder, running.scale(), chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])
