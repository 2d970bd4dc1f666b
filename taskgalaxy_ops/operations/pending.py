"""What has no answer yet, by stage and by why, from what the store records; asks no model, and encodes no image.

The units are counted that a run would ask for next. What their answers lead to comes on top: a plan has bounds for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from taskgalaxy_ops.generation.corrected import put_to_vote
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING, STAGE
from taskgalaxy_ops.generation.stages.asking import Templates, pure
from taskgalaxy_ops.inference.model_health import outages
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, has_journal, wanted_matches
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

_READ = 64  # image shards whose journals are read, so that a look does not take longer the larger the store is


class Why(StrEnum):
    """Why a unit has no answer. The first that holds counts."""

    IN_BATCH = "in a batch under way"
    MODEL_AWAY = "the model serves nothing"
    BUDGET = "the budget is spent"
    NOT_ASKED = "not asked yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUnits:
    """Units of a stage without an answer."""

    stage: str
    units: int
    why: str  # a Why
    detail: str = ""  # the model; or the settings of the caps that are reached


@dataclass(frozen=True, slots=True)
class Pending:
    """Everything without an answer."""

    units: Sequence[PendingUnits] = ()
    uncounted: int = 0  # image shards with something to ask that were not looked at


def pending(view: Workspace, state: StoreState) -> Pending:
    """What has no answer in these image shards. view: a snapshot of the workspace.

    Journals are read of 64 image shards at most; of image shards that were never asked about, none.
    """
    unsettled = [one for one in state.shards if not one.settled]
    if not unsettled:
        return Pending()
    settings = view.settings
    keys = StageKeys(view)
    reasons = _Reasons(view)
    matches = min(settings.match.k, len(state.types.ids))
    found: Counter[tuple[str, str, str]] = Counter()
    read = uncounted = 0
    for one in unsettled:
        source = reasons.source_of(one)
        asked = has_journal(view, one.shard.id) or "filter" in one.stage_outputs
        if not asked and settings.match.always_k and settings.targets is None:  # each image has as many matches
            found["filter", *reasons.why(settings.teacher.name, source)] += one.live * matches
        elif read == _READ or "embed" not in one.stage_outputs:
            uncounted += 1
        else:
            read += 1
            for stage, model, in_batch, others in _lacking(view, state, one, keys.templates_for(one.shard.id)):
                found[stage, Why.IN_BATCH, model] += in_batch
                found[stage, *reasons.why(model, source)] += others
    units = [
        PendingUnits(stage=stage, units=number, why=why, detail=detail)
        for (stage, why, detail), number in sorted(found.items(), key=lambda item: (ASKING.index(item[0][0]), item[0]))
        if number
    ]
    return Pending(tuple(units), uncounted)


class _Reasons:
    """Why units of a model and a source are not asked, beside batches."""

    def __init__(self, view: Workspace) -> None:
        self._ledger, self._origins = view.ledger(), view.registry.origins()
        self._away = {each.model for each in outages(view.store, view.settings.models)}
        self._reached: dict[str, str] = {}  # by source

    def source_of(self, one: ShardState) -> str:
        """The source that calls about an image shard count for."""
        return self._origins.get(one.shard.id, "")

    def why(self, model: str, source: str) -> tuple[str, str]:
        """A Why, and its detail."""
        if model in self._away:
            return Why.MODEL_AWAY, model
        if source not in self._reached:
            self._reached[source] = ", ".join(self._ledger.reached(source))
        reached = self._reached[source]
        return (Why.BUDGET, reached) if reached else (Why.NOT_ASKED, "")


def _lacking(
    view: Workspace, state: StoreState, one: ShardState, templates: Mapping[str, Templates]
) -> Iterator[tuple[str, str, int, int]]:
    """By stage and model: the numbers of units without an answer in a batch under way, and of the others."""
    journal = Journal(view.store, one.shard.id, state.begun.get(one.shard.id))
    under_way = journal.batches.under_way
    made: Mapping[str, Sequence[Any]] = {"matches": wanted_matches(view, state, one) or ()}
    output, before, whole = None, "match", True
    for name in ASKING:
        stage = STAGE[name]
        if name in one.stage_outputs:
            made, output, before = {}, one.stage_outputs[name], name
            continue
        table = stage.reads
        rows = made[table] if output is None else view.stage_outputs.load(output, table, STAGE[before].tables[table])
        if name == "vote":
            rows = put_to_vote(view, rows)
        work = pure(name).work(templates[name], rows, staged(view, stage=name, whole=whole))
        for template, units in work.needed(journal.answers):
            keys = {unit.key for unit in units}
            in_batch = len(keys & under_way)
            yield name, template.model.name, in_batch, len(keys) - in_batch
        told = work.output(journal.answers)
        made, output, before, whole = told.rows, None, name, whole and not told.pending
