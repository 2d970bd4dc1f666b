"""Which answers count for task types that were renamed, moved or merged, and what asking again would cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from taskgalaxy_ops.operations.costs import Share, by_task_type
from taskgalaxy_ops.taxonomy import Renamed, TaxonomyVersion
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class Answered:
    """Task types that have answers, and what these cost: about what asking again costs."""

    task_types: int = 0
    share: Share = field(default_factory=Share)


@dataclass(slots=True)
class CarriedAnswers:
    """The answers of task types that have another path now."""

    kept: Answered = field(default_factory=Answered)  # they count for the new path
    dropped: Answered = field(default_factory=Answered)  # they stay in the journals, and count for nothing


def carried_answers(workspace: Workspace, base: TaxonomyVersion, renamed: Iterable[Renamed]) -> CarriedAnswers:
    """By the store's own counts. base: the version before. Reads every journal; asks nothing."""
    paid, found = by_task_type(workspace), CarriedAnswers()
    for each in renamed:
        if (share := paid.get(base.asked_of(each.before))) is not None:
            answered = found.kept if each.kept else found.dropped
            answered.task_types += 1
            answered.share.add(share.units, share.tokens, share.cost, share.list_cost)
    return found
