"""Where a fine-tuned model is weak, by first-level branch: weights that later growth and targets read.

``operations.weak_branches`` makes them of scores. They are kept in a log, so that what reads them can name the entry:
another score changes nothing before somebody, or the fine-tune's DAG, records it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class WeakBranch:
    """A first-level branch, and how much more than the average it is worth growing."""

    branch: TaskTypePath
    weight: float  # 1: as weak as the average; 2: twice as many wrong answers; three digits
    because: tuple[str, ...]  # the scores that it was made of, in words


@dataclass(frozen=True, slots=True)
class Weaknesses:
    """What the scores of one model say of the branches that they are about; the weakest first."""

    model: str  # as ``Score.model``
    scores: str  # identity of the scores
    branches: tuple[WeakBranch, ...]

    def weight(self, path: TaskTypePath) -> float:
        """Of the branch that a node lies in; 1 where no score is about it."""
        first = path.partition("~")[0]
        return next((each.weight for each in self.branches if each.branch == first), 1.0)


def record(store: Store, found: Weaknesses) -> int:
    """Keep what was found as the latest, unless it is; returns its number."""
    body = asdict(found)
    body["branches"] = [{**each, "because": list(each["because"])} for each in body["branches"]]
    log = Log(store, keys.WEAKNESSES_LOG)

    def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
        return None if entries and entries[-1].body == body else body

    log.append_if(decide)
    return log.last


def in_force(workspace: Workspace) -> Weaknesses | None:
    """What growth and targets go by: the latest that was recorded, if the settings ask for it."""
    return recorded(workspace.store) if workspace.settings.taxonomy.weaknesses is not None else None


def recorded(store: Store) -> Weaknesses | None:
    """The latest that was recorded; None: none was."""
    entries = Log(store, keys.WEAKNESSES_LOG).read()
    if not entries:
        return None
    body = entries[-1].body
    branches = (WeakBranch(each["branch"], each["weight"], tuple(each["because"])) for each in body["branches"])
    return Weaknesses(body["model"], body["scores"], tuple(branches))
