"""The card's funnel, and its task types with their targets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from taskgalaxy_ops.drawing.funnel import funnel_svg
from taskgalaxy_ops.drawing.standalone import standalone
from taskgalaxy_ops.drawing.treemap import treemap_svg
from taskgalaxy_ops.release.markdown import table, text
from taskgalaxy_ops.release.select import Selection

FUNNEL = "card/funnel.svg"
TASK_TYPES = "card/task-types.svg"
DRAWINGS = (FUNNEL, TASK_TYPES)


def funnel(plan: Selection) -> list[str]:
    rows = []
    for stage in plan.funnel:
        rejects = "<br>".join(
            f"{text(reason)} {number:,}" for reason, number in sorted(stage.rejects.items()) if number
        )
        rows.append((text(stage.stage), f"{stage.units_in:,}", f"{stage.units_out:,}", rejects, f"{stage.pending:,}"))
    return [
        "## Funnel",
        "",
        f"![The funnel: each stage with what it takes, gives and rejects]({FUNNEL})",
        "",
        "Each stage in its own units: images, matches, task types that fit, question-answer pairs, samples.",
        "",
        *table(("stage", "in", "out", "rejected", "pending"), rows),
    ]


def taxonomy(plan: Selection) -> list[str]:
    leaves: dict[str, set[str]] = defaultdict(set)
    covered: dict[str, set[str]] = defaultdict(set)
    samples: Counter[str] = Counter()
    for leaf in plan.inputs.taxonomy.leaves:
        leaves[_first(leaf)].add(leaf)
    for task_type, number in plan.task_types.items():
        first = _first(task_type)
        leaves[first].add(task_type)
        covered[first].add(task_type)
        samples[first] += number
    levels = ", ".join(f"{n:,} on level {level}" for level, n in sorted(plan.inputs.taxonomy.levels.items()))
    total = sum(map(len, leaves.values()))
    return [
        "## Task types",
        "",
        f"![Task types by their number of samples, in their first levels]({TASK_TYPES})",
        "",
        f"The taxonomy has {total:,} task types ({levels or 'no nodes'}). {plan.counts['task_types']:,} have samples.",
        "",
        *table(
            ("first level", "task types", "with samples", "samples"),
            [(text(n), f"{len(leaves[n]):,}", f"{len(covered[n]):,}", f"{samples[n]:,}") for n in sorted(leaves)],
        ),
        *_targets(plan.inputs.targets),
    ]


def drawings(plan: Selection) -> Iterator[tuple[str, bytes]]:
    """The pictures of these sections, by path: SVG."""
    yield FUNNEL, standalone(funnel_svg(plan.funnel))
    yield TASK_TYPES, standalone(treemap_svg(plan.task_types, "samples"))


def _targets(found: Mapping[str, int] | None) -> list[str]:
    """How many task types have as many samples as was asked for, and why others have not."""
    if found is None:
        return []
    return [
        "A task type that has enough samples was asked no further; the settings below say how many are enough, and how "
        "many images it may try.",
        "",
        *table(("target", "task types"), [(text(standing), f"{number:,}") for standing, number in found.items()]),
    ]


def _first(path: str) -> str:
    return path.partition("~")[0]
