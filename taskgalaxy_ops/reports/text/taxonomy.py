"""The text of `taxonomy stats`, `search`, `diff`, `import`, `rename`, `move` and `merge`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from taskgalaxy_ops.operations.carried_answers import Answered, CarriedAnswers
from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.reports.text.run import more
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy import Diff, Renamed, ancestors
from taskgalaxy_ops.taxonomy.search import Found
from taskgalaxy_ops.taxonomy.stats import TaxonomyStats
from taskgalaxy_ops.taxonomy.version import LIVE
from taskgalaxy_ops.text import dollars, shown

_SHOWN = 20


def stats(found: TaxonomyStats) -> list[str]:
    first = len(found.branches)
    lines = [
        f"version {found.version}: {found.task_types:,} task types in {first:,} first-level nodes",
        f"{found.nodes:,} live nodes, {found.renamed:,} of them renamed; {found.retired:,} retired",
        f"{'level':<7}{'nodes':>9}{'task types':>12}{'children a group':>18}{'most':>7}",
    ]
    for level, each in found.levels.items():
        children = "-" if each.children is None else f"{each.children:.1f}"
        lines.append(f"{level:<7}{each.nodes:>9,}{each.task_types:>12,}{children:>18}{each.most_children:>7,}")
    lines.append(f"mean level of the task types  {_number(found.depth)}")
    lines.append(f"balance of the branches       Gini {_number(found.gini)}, entropy {_number(found.evenness)} of 1")
    origins = ", ".join(f"{number:,} {shown(origin)}" for origin, number in found.origins.items())
    lines.append(f"origins of the task types     {origins or 'none'}")
    branches = [f"{number:>9,} {shown(path)}" for path, number in found.branches.items()]
    return [*lines, "task types by first-level node:", *branches[:_SHOWN], *more(len(branches) - _SHOWN)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def search(found: Found) -> list[str]:
    lines = [f"version {found.version}: nodes with these words: {len(found.by_words):,}"]
    for node in found.by_words[:_SHOWN]:
        state = "" if node.status == LIVE else f"  [{node.status}]"
        lines.append(f"  {shown(node.path)}{state}{f'  -> {shown(node.successor)}' if node.successor else ''}")
    lines += more(len(found.by_words) - _SHOWN)
    if found.by_meaning:
        lines.append("nearest task types by meaning:")
        lines += [f"  {similarity:.3f}  {shown(path)}" for path, similarity in found.by_meaning]
    return lines


def changes(found: Diff) -> list[str]:
    lines = renamed(found.renamed)
    lines += [f"+ {node.path}" for node in found.added] + [f"- {node.path}" for node in found.removed]
    lines += [f"- {node.path} (retired)" for node in found.retired]
    lines += [f"~ {new.path}" for _, new in found.changed]
    return lines or ["no difference"]


def renamed(found: Sequence[Renamed]) -> list[str]:
    """What was renamed, moved and merged; of what lies below such a node and went with it, only the number."""
    went = {each.before: each.after for each in found}
    below: Counter[TaskTypePath] = Counter()
    first: list[Renamed] = []
    for each in sorted(found, key=lambda each: each.before):
        top = next((above for above in ancestors(each.before) if above in went), None)
        if top is not None and each.how != "merged" and each.after == went[top] + each.before[len(top) :]:
            below[top] += 1
        else:
            first.append(each)
    lines = []
    for each in first:
        more_below = f", with {below[each.before]:,} nodes below it" if below[each.before] else ""
        answers = "" if each.kept else "; its answers do not count for it" if each.how == "merged" else "; asked again"
        lines.append(f"> {shown(each.before)} -> {shown(each.after)} ({each.how}{more_below}{answers})")
    return lines


def carried(found: CarriedAnswers) -> list[str]:
    """What becomes of the answers of renamed task types."""
    lines = []
    if found.kept.task_types:
        lines.append(
            f"{_answers(found.kept)} carry over; asking again (--answers ask-again) would cost about "
            f"{_cost(found.kept)}"
        )
    if found.dropped.task_types:
        lines.append(f"{_answers(found.dropped)} count no more; asking again costs about {_cost(found.dropped)}")
    return lines or ["no answer of these was paid for"]


def _answers(found: Answered) -> str:
    return f"{found.share.units:,} answers on {found.task_types:,} task types"


def _cost(found: Answered) -> str:
    listed = f" ({dollars(found.share.list_cost / NANO)} at list prices)"
    return f"{dollars(found.share.cost / NANO)}{listed if found.share.list_cost != found.share.cost else ''}"


def imported(changes: Diff, notes: Sequence[str], *, dry_run: bool) -> list[str]:
    """What an import changes, or would change."""
    would = "would be " if dry_run else ""
    counts = (
        (len(changes.added), "added"),
        (len(changes.changed), "changed"),
        (len(changes.retired), "retired"),
    )
    lines = [", ".join(f"{number:,} {would}{what}" for number, what in counts)]
    for mark, paths in (
        ("+", [node.path for node in changes.added]),
        ("~", [node.path for _, node in changes.changed]),
        ("-", [node.path for node in changes.retired]),
    ):
        lines += [f"  {mark} {shown(path)}" for path in paths[:_SHOWN]] + more(len(paths) - _SHOWN)
    return [*lines, *(f"note: {shown(note)}" for note in notes[:_SHOWN]), *more(len(notes) - _SHOWN)]
