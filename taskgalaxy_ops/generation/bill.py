"""What a store has paid for, added up from its journals by stage, model, run and source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.marker_index import keep
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True, kw_only=True)
class Bill:
    """What a store has paid for over its lifetime."""

    all: Tally = field(default_factory=Tally)
    by_stage: dict[str, Tally] = field(default_factory=dict)
    by_model: dict[str, Tally] = field(default_factory=dict)
    simulated: set[str] = field(default_factory=set)  # models whose replies say that they are simulated
    by_run: dict[str, Tally] = field(default_factory=dict)  # "": written by a version that did not record the run
    by_source: dict[str, Tally] = field(
        default_factory=dict
    )  # source whose scan made the image shard; "": the taxonomy
    times: dict[str, tuple[float, float]] = field(default_factory=dict)  # by run: its first reply and its last


_TALLY_VERSION = 2  # of the tally that is kept of an image shard's journal; one of another version is made again


def bill(workspace: Workspace) -> Bill:
    """Add up every journal of the store. For a journal that did not grow since, reads the tally that it stored."""
    result = Bill()
    origins = workspace.registry.origins()
    for shard in workspace.journals():
        tally = _tally(workspace, shard)
        result.simulated.update(tally["simulated"])
        for run, (first, last) in tally["times"].items():
            earliest, latest = result.times.get(run, (first, last))
            result.times[run] = min(first, earliest), max(last, latest)
        for stage, model, run, numbers in tally["calls"]:
            parts = (
                (result.by_stage, stage),
                (result.by_model, model),
                (result.by_run, run),
                (result.by_source, origins.get(shard, "")),
            )
            for each in (result.all, *(tallies.setdefault(name, Tally()) for tallies, name in parts)):
                each += Tally(**numbers)
    return result


def _tally(workspace: Workspace, shard: str) -> Mapping[str, Any]:
    """The tally of an image shard's journal: the stored one if the journal did not grow since, else a new one."""
    none: dict[str, Any] = {"v": _TALLY_VERSION, "seen": 0, "simulated": [], "times": {}, "calls": []}
    known = none
    with contextlib.suppress(NotFoundError):
        known = json.loads(workspace.store.get(keys.tally(shard)))
    if known.get("v") != _TALLY_VERSION:
        known = none
    if Log(workspace.store, keys.journal(shard)).newest(known["seen"]) == known["seen"]:
        return known
    # Read the whole journal, so that a reply that was written twice counts once. This is no great cost, because the run
    # that appended to it read it, too.
    journal = Journal(workspace.store, shard)
    calls: dict[tuple[str, str, str], Tally] = {}
    times: dict[str, tuple[float, float]] = {}
    simulated = set()
    for reply in journal.outlines():
        if reply["simulated"]:
            simulated.add(reply["model"])
        run, at = reply.get("run", ""), reply["at"]
        calls.setdefault((reply["stage"], reply["model"], run), Tally()).add(reply)
        first, last = times.get(run, (at, at))
        times[run] = min(at, first), max(at, last)
    made = {
        "v": _TALLY_VERSION,
        "times": times,
        "seen": journal.seen,
        "simulated": sorted(simulated),
        "calls": [[*names, calls[names].to_json()] for names in sorted(calls)],
    }
    keep(workspace.store, keys.tally(shard), json.dumps(made).encode())
    return made
