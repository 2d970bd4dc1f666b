"""What a release of now would hold of the store's benchmarks, with examples; it writes nothing but side tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import ImageId, PairId
from taskgalaxy_ops.release.decontaminate.leaks import BenchmarkCount, counts
from taskgalaxy_ops.release.decontaminate.reading import Item, read_items
from taskgalaxy_ops.release.decontaminate.stored import compared_with
from taskgalaxy_ops.release.publish import release_inputs
from taskgalaxy_ops.settings import DecontaminateSettings
from taskgalaxy_ops.text import shown
from taskgalaxy_ops.workspace import Workspace

_OF_A_KIND = 4  # examples of each kind of finding, of a benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A finding, and the item that it is about."""

    benchmark: str
    what: str  # "benchmark image" or "benchmark question"
    kind: str
    score: float
    item: str
    image: ImageId
    pair: PairId
    question: str
    theirs: Item | None = None  # None: its benchmark cannot be read any more, or has no such item there


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """What of the store's samples is in its benchmarks."""

    samples: int  # accepted pairs that were compared
    left_out: int  # of these, those that a release leaves out for it
    benchmarks: Sequence[BenchmarkCount]
    examples: Sequence[Example]
    simulated: bool
    unread: Mapping[str, str] = field(default_factory=dict)  # by benchmark, why its items cannot be shown


def leak_report(workspace: Workspace, progress: Progress | None = None) -> LeakReport:
    """Compare the accepted pairs with the benchmarks, by the settings' thresholds or by the package's.

    Raises SettingsError where the store knows none.
    """
    chosen = workspace.settings.release
    if chosen.decontaminate is None:
        workspace = workspace.with_settings(
            release=chosen.model_copy(update={"decontaminate": DecontaminateSettings()})
        )
    results = RunResults(workspace)
    inputs = release_inputs(results, progress=progress)
    with release.select_samples(inputs, workspace.settings.release) as plan:
        assert inputs.benchmarks is not None  # else compared_with had raised
        found = counts(plan.rows, inputs.benchmarks)
        examples = _examples(plan)
        of_leaks = ("benchmark image", "benchmark question")
        funnel = plan.funnel[-1]
        left_out = sum(funnel.rejects.get(reason, 0) for reason in of_leaks)
    items, unread = _items(workspace, examples)
    return LeakReport(
        samples=funnel.units_in,
        left_out=left_out,
        benchmarks=found,
        examples=[_with(each, items.get((each.benchmark, each.item))) for each in examples],
        simulated=results.simulated,
        unread=unread,
    )


def _examples(plan: release.Selection) -> list[Example]:
    """The surest few findings of each kind; of an image, with its first sample."""
    rows = plan.rows.execute(
        "WITH said AS (SELECT pair AS id, pair, image, question FROM pairs WHERE image IS NOT NULL UNION ALL "
        "SELECT image, min(pair), image, question FROM pairs WHERE image IS NOT NULL GROUP BY image), "
        "ranked AS (SELECT *, row_number() OVER (PARTITION BY benchmark, what, kind ORDER BY score DESC, item, id) AS "
        "place FROM leaks JOIN said USING (id)) "
        "SELECT benchmark, what, kind, score, item, image, pair, question FROM ranked WHERE place <= ? "
        "ORDER BY benchmark, what, kind, place",
        (_OF_A_KIND,),
    )
    names = ("benchmark", "what", "kind", "score", "item", "image", "pair", "question")
    return [Example(**dict(zip(names, row, strict=True))) for row in rows]


def _items(workspace: Workspace, examples: Iterable[Example]) -> tuple[dict[tuple[str, str], Item], dict[str, str]]:
    """The items of examples, read where the benchmarks lie; and by benchmark, why they cannot be."""
    found: dict[tuple[str, str], Item] = {}
    unread: dict[str, str] = {}
    wanted: dict[str, set[str]] = {}
    for each in examples:
        wanted.setdefault(each.benchmark, set()).add(each.item)
    for benchmark in compared_with(workspace):
        missing = wanted.get(benchmark.name, set())
        try:
            with suppress(StopIteration):
                items = read_items(benchmark.location, **workspace.s3_options)
                while missing:
                    item = next(items)
                    if item.item in missing:
                        missing.discard(item.item)
                        found[benchmark.name, item.item] = item
        except TaskGalaxyError as error:
            unread[benchmark.name] = shown(error)
            continue
        if missing:
            unread[benchmark.name] = f"{benchmark.location} has no item {', '.join(sorted(missing))} any more"
    return found, unread


def _with(example: Example, theirs: Item | None) -> Example:
    fields = {name: getattr(example, name) for name in Example.__slots__}
    return Example(**{**fields, "theirs": theirs})
