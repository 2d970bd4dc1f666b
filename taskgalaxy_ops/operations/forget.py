"""Forget answers, so that they are asked for again, for example because a model gave garbage for a day.

The old replies stay in the journals, but no longer count. Units that are no longer needed are not asked again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.storage.journal import Journal, images_of
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.workspace import Workspace

_WHERE = ("stage", "image", "source", "terminal")


@dataclass(slots=True, kw_only=True)
class Forgotten:
    """The answers that are to be forgotten, or were, and their share of what their replies cost.

    Asking again costs about this at most.
    """

    by_shard: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # units by image shard and stage
    units: dict[str, int] = field(default_factory=dict)  # by stage
    calls: int = 0  # replies concerned
    tokens: float = 0.0
    cost: float = 0.0  # nano-dollars
    list_cost: float = 0.0  # nano-dollars
    reviewed: int = 0  # pairs that people voted on, of the images whose questions are written again


def forget(
    workspace: Workspace,
    *,
    model: str | None = None,
    since: float | None = None,
    until: float | None = None,
    where: Mapping[str, str] | None = None,
    dry_run: bool = True,
    progress: Progress | None = None,
) -> Forgotten:
    """Forget the answers that fulfil all these conditions, so that they are asked for again.

    model: its name in the settings. since, until: seconds since the epoch. where: values by name: ``stage``, ``image``
    (the beginning of an id), ``source``, ``terminal`` (a reason, or "any"), or ``answer.FIELD``, the answer's value
    there, with ``~`` in front for a part of it. dry_run: only return which answers these are. Raises SettingsError
    where there is no condition, or an unknown one.
    """
    where = dict(where or {})
    if not where and model is None and since is None and until is None:
        raise SettingsError("forget: say what: --model, --since, --until or --where. Everything is too much.")
    if unknown := [name for name in where if name not in _WHERE and not name.startswith("answer.")]:
        raise SettingsError(f"forget --where {unknown[0]}: choose by {', '.join(_WHERE)} or answer.FIELD.")
    progress = progress or Silent()
    source = where.pop("source", None)
    images = None if source is None else {c.image for c in workspace.registry.claims() if c.source == source}
    chosen, rewritten = Forgotten(), set[str]()
    shards = workspace.journals()
    progress.stage("forget", len(shards), "journals")
    for shard in shards:
        concerned: set[str] = set()
        accepted = Journal(workspace.store, shard).accepted_replies()
        calls = {reply["reply"]: reply for reply in accepted.values()}
        for unit, reply in accepted.items():
            if (
                (model is None or reply["model"] == model)
                and (since or 0) <= reply["at"] <= (until or math.inf)
                and (images is None or not images.isdisjoint(images_of(reply)))
                and all(_fits(name, wanted, unit, reply) for name, wanted in where.items())
            ):
                chosen.by_shard.setdefault(shard, {}).setdefault(reply["stage"], []).append(unit)
                concerned.add(reply["reply"])
                if reply["stage"] == "write":
                    rewritten.add(reply.get("image") or "")
                _count(chosen, reply, calls.get((reply.get("note") or {}).get("asked_along", ""), reply))
        chosen.calls += len(concerned)
        progress.advance("forget")
    if rewritten and (reviews := ReviewLog(workspace.store).read()):
        chosen.reviewed = sum(said[0].image in rewritten for said in reviews.by_pair.values())
    if not dry_run:
        carry_out(workspace, chosen)
    return chosen


def carry_out(workspace: Workspace, chosen: Forgotten) -> None:
    """Forget the answers that a dry run returned, and none that came since."""
    edits = workspace.edits()
    for shard, units in chosen.by_shard.items():
        edits.forget(shard, units)


def _fits(name: str, wanted: str, unit: str, reply: Mapping[str, Any]) -> bool:
    if name == "stage":
        return bool(reply["stage"] == wanted)
    if name == "image":
        return any((image or "").startswith(wanted) for image in images_of(reply))
    answer = reply["answers"][unit]
    if name == "terminal":
        return answer.get("terminal") is not None and wanted in {"any", answer["terminal"]}
    value = (answer.get("value") or {}).get(name.removeprefix("answer."))
    said = str(value).lower() if isinstance(value, bool) else str(value)
    if wanted.startswith("~"):
        return value is not None and wanted[1:].casefold() in said.casefold()
    return value is not None and said == wanted


def _count(chosen: Forgotten, reply: Mapping[str, Any], call: Mapping[str, Any]) -> None:
    """Count an answer of a reply; call: what was paid for it, which may have been another stage's request."""
    chosen.units[reply["stage"]] = chosen.units.get(reply["stage"], 0) + 1
    share = 1 / max(1, len(reply["answers"]))
    chosen.tokens += share * pricing.tokens(call["usage"])
    chosen.cost += share * call["cost"]
    chosen.list_cost += share * call["list_cost"]
