"""Costs: what a store has paid for, by role, stage, model, source, run and task type.

Each breakdown adds up to the total. An image shard's calls count for the source whose scan made it, whichever source
claims its images later. The cost of a request with several units is divided among them in whole nano-dollars and
tokens; the first units get the remainder. Read from the journals, one image shard at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.stages import STAGE
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger_totals import NOTHING, Spent
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace

TAXONOMY = "(the taxonomy itself)"
TAKEN_DOWN = "(taken down)"
NOT_RECORDED = "(not recorded: asked by an older version)"


@dataclass(slots=True)
class Share:
    """A task type's part of what was paid."""

    units: int = 0  # units asked; a unit that was asked again counts again
    tokens: int = 0
    cost: int = 0  # nano-dollars
    list_cost: int = 0  # nano-dollars

    def add(self, units: int, tokens: int, cost: int, list_cost: int) -> None:
        """Add a unit's part."""
        self.units, self.tokens = self.units + units, self.tokens + tokens
        self.cost, self.list_cost = self.cost + cost, self.list_cost + list_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was paid for, in several breakdowns; each adds up to ``total``."""

    total: Tally
    role: Mapping[str, Tally]  # teacher, judge
    stage: Mapping[str, Tally]
    model: Mapping[str, Tally]
    source: Mapping[str, Tally]
    run: Mapping[str, Tally]  # the latest first
    times: Mapping[str, tuple[float, float]]  # by run: times of its first and its last reply, seconds since the epoch
    task_type: Mapping[str, Share] = field(default_factory=dict)  # {}: not asked for
    spent: Spent = NOTHING  # by the budget's ledger, which counts also reservations, and calls without a reply


def costs(workspace: Workspace, *, task_types: bool = False) -> Costs:
    """Add up a store's costs.

    task_types: by task type, too; this reads every journal, otherwise only those that grew since the last call.
    """
    paid = bill(workspace)
    role: dict[str, Tally] = {}
    for stage, tally in paid.by_stage.items():
        judges = stage in STAGE and STAGE[stage].role == "judges"
        each = role.setdefault("judge" if judges else "teacher", Tally())
        each += tally
    runs = sorted(paid.by_run, key=lambda run: -paid.times[run][1])
    return Costs(
        total=paid.all,
        role=role,
        stage=paid.by_stage,
        model=paid.by_model,
        source={name or TAXONOMY: tally for name, tally in _dearest(paid.by_source)},
        run={run or NOT_RECORDED: paid.by_run[run] for run in runs},
        times={run or NOT_RECORDED: paid.times[run] for run in runs},
        task_type=_shown(workspace, by_task_type(workspace)) if task_types else {},
        spent=workspace.ledger().spent(),
    )


def _dearest(tallies: Mapping[str, Tally]) -> list[tuple[str, Tally]]:
    return sorted(tallies.items(), key=lambda each: (-each[1].cost, -each[1].tokens, each[0]))


def by_task_type(workspace: Workspace) -> dict[TaskTypePath, Share]:
    """What each task type cost, by the path as it was asked. Reads every journal."""
    by_type: dict[str, Share] = {}
    for shard in workspace.journals():
        for reply in Journal(workspace.store, shard).replies():
            for name, *part in shares(reply, TAXONOMY if shard == keys.TAXONOMY_SHARD else NOT_RECORDED):
                by_type.setdefault(name, Share()).add(*part)
    return by_type


def _shown(workspace: Workspace, by_type: Mapping[TaskTypePath, Share]) -> dict[str, Share]:
    """The same by present path, the dearest first."""
    version = TaxonomyStore(workspace).version()
    found: dict[str, Share] = {}
    for path, share in by_type.items():
        found.setdefault(version.shown(path), Share()).add(share.units, share.tokens, share.cost, share.list_cost)
    return dict(sorted(found.items(), key=lambda each: (-each[1].cost, -each[1].tokens, each[0])))


def shares(reply: Mapping[str, Any], otherwise: str) -> Iterator[tuple[str, int, int, int, int]]:
    """Each unit's part of a reply: (task type, units, tokens, cost, list cost), costs in nano-dollars.

    otherwise: the name for units that have no task type. A journal entry that only added terminal answers was no call,
    and yields nothing. A reply about an image that was taken down has no units left, and yields one part for it.
    """
    if not reply["raw"]:
        return
    units = len(reply["units"])
    amounts = (pricing.tokens(reply["usage"]), reply["cost"], reply["list_cost"])
    if not units:
        yield TAKEN_DOWN, 0, *amounts
        return
    types = reply.get("types") or [otherwise] * units
    for number, name in enumerate(types):
        tokens, cost, list_cost = (amount // units + (number < amount % units) for amount in amounts)
        yield name, 1, tokens, cost, list_cost
