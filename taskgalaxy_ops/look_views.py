"""What `plan`, `status` and `explain` print for people, without control characters of models' and sources' text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from taskgalaxy_ops.models.questions import clean
from taskgalaxy_ops.planning import Bounds, RunPlan, StagePlan
from taskgalaxy_ops.status import StageStatus, Status

UNITS = {
    "embed": "images",
    "match": "images",
    "filter": "matches",
    "write": "questions to write",
    "vote": "votes",
}
_IN_OUT = {
    "ingest": ("files", "images"),
    "embed": ("images", "embedded"),
    "match": ("images", "matches"),
    "filter": ("matches", "fitting"),
    "write": ("questions to write", "pairs"),
    "vote": ("pairs", "accepted"),
}


def shown(text: object) -> str:
    """Untrusted text on one line, without what a terminal would act upon."""
    return " ".join(clean(str(text)).split())


# --- plan


def plan(found: RunPlan) -> list[str]:
    """The plan as a table, with what changed below each stage."""
    lines = [f"{found.homes:,} shards, {found.task_types:,} task types. Nothing was asked. A run would do:"]
    header = ("", "shards there", "units there", "units to do", "requests", "tokens", "cost", "time")
    rows = [header, *(plan_row(each) for each in found.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row, stage in zip(rows, [None, *found.stages], strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if stage:
            lines += [f"{'':8}{shards:,} shards: {shown(why)}" for why, shards in stage.why.items()]
    return [*lines, *plan_notes(found)]


def plan_row(each: StagePlan) -> tuple[str, ...]:
    """A stage's cells: name, shards, units there, units to do, requests, tokens, cost, time."""
    asks = each.stage not in {"embed", "match"}
    return (
        each.stage,
        f"{each.shards_there:,} of {each.shards:,}",
        f"{each.units_there:,}",
        f"{_bounds(each.units)} {UNITS[each.stage]}",
        _known(each.requests) if asks else "",
        _known(each.tokens) if asks else "",
        _known(each.cost, _money) if asks else "",
        _known(each.seconds, _time),
    )


def plan_notes(found: RunPlan) -> list[str]:
    """The total, and how the numbers are to be read."""
    cost, listed, seconds = (found.total(name) for name in ("cost", "list_cost", "seconds"))
    notes = []
    if not any(each.units.high for each in found.stages):
        return ["nothing to do"]
    if cost is None:
        notes.append(
            "Some cost is not known: nothing of that stage has been asked yet. `taskgalaxy pilot` measures it."
        )
    else:
        notes.append(f"together {_bounds(cost, _money)}" + (f", {_bounds(seconds, _time)}" if seconds else ""))
    if cost is not None and listed is not None and listed.high > cost.high:
        notes.append(f"at list prices {_bounds(listed, _money)}")
    if any(not each.units.exact for each in found.stages):
        notes.append("a to b: none of what is asked before passes, all of it does; about: as it went so far")
    if any(each.requests and each.requests.high for each in found.stages):
        notes.append("requests, tokens, cost and time: at what a unit of the stage took so far")
    return notes


def _known(bounds: Bounds | None, form: Callable[[float], str] | None = None) -> str:
    return "not known" if bounds is None else _bounds(bounds, form or _number)


def _bounds(bounds: Bounds, form: Callable[[float], str] | None = None) -> str:
    form = form or _number
    low, expected, high = form(bounds.low), form(bounds.expected), form(bounds.high)
    return low if low == high else f"{low} to {high}, about {expected}"


def _number(value: float) -> str:
    return f"{round(value):,}"


def _money(value: float) -> str:
    return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


# --- status


def status(found: Status) -> list[str]:
    """Sources, stages, spending, releases."""
    spent = found.spent
    cap_calls = "no cap" if spent["max_calls"] is None else f"of {spent['max_calls']:,}"
    cap_cost = "no cap" if spent["max_cost"] is None else f"of ${spent['max_cost']:.2f}"
    lines = [
        f"store     {found.store}" + ("  (SIMULATED models)" if found.simulated else ""),
        f"taxonomy  version {found.taxonomy['version']}, {found.taxonomy['task_types']:,} task types",
        f"spent     {spent['calls']:,} calls {cap_calls}, ${spent['cost']:.4f} {cap_cost}",
    ]
    if spent["max_tokens"] is not None:
        lines.append(f"          {spent['tokens']:,} tokens of {spent['max_tokens']:,}")
    lines += [f"          {shown(line)}" for line in spent["caps"]]
    for each in found.sources:
        left = "" if each.shards == each.shards_done else f", {each.shards - each.shards_done:,} of them to do"
        lines.append(
            f"source    {shown(each.source)}: {each.images:,} images, {each.rejects:,} rejects, {each.shards:,} shards"
            f"{left} ({shown(each.location)})"
        )
    if not found.sources:
        lines.append("source    none yet: run `taskgalaxy ingest`")
    for stage in found.stages:
        lines += _stage(stage)
    if found.pending is None:
        lines.append("pending   yes: `taskgalaxy plan` says how much")
    lines += [
        f"release   v{each['version']:06d}: {each['samples']:,} samples{' (partial)' if each['partial'] else ''}"
        for each in found.releases
    ]
    return lines + [f"training  job {key[:16]} has not ended" for key in found.finetunes]


def _stage(each: StageStatus) -> list[str]:
    unit_in, unit_out = _IN_OUT[each.stage]
    shards = f"{each.shards_there:,} of {each.shards:,} shards"
    asked = f"   {each.calls:,} calls, {each.tokens:,} tokens, ${each.cost:.4f}" if each.calls else ""
    line = (
        f"{each.stage:<9} {shards:<22} {each.units_in:>9,} {unit_in:<18} -> {each.units_out:>9,} {unit_out:<9}{asked}"
    )
    return [line.rstrip(), *(f"{'':33}{number:>9,} {reason}" for reason, number in each.rejects.items())]


# --- explain


def explained(found: Mapping[str, Any]) -> list[str]:
    """A story from its beginning to its end."""
    if "rejected" in found and "task_type" not in found:
        return [
            f"{shown(r['source'])}: {r['file']!r} was rejected: {r['reason']} ({shown(r['detail'])})"
            for r in found["rejected"]
        ]
    if "task_type" in found:
        return _task_type(found)
    image = found["image"]
    lines = [f"image {image['image']}: {image['width']} x {image['height']} {image['format']}, {image['size']:,} bytes"]
    for claim in found["claims"]:
        told = [f"{name} {shown(claim[name])}" for name in ("origin", "licence", "attribution") if claim[name]]
        lines.append(f"  in {shown(claim['source'])}: {claim['file']!r}" + (f" ({', '.join(told)})" if told else ""))
    if not found["claims"]:
        lines.append("  no source claims it any more: it is part of nothing that is made from now on")
    if former := found.get("former"):
        why = "; ".join(former["changed"]) or "not recorded"
        lines += [
            f"  pair {former['pair'][:12]} ({former['task_type']}, {former['variant']}) is of a former shard:",
            f"    changed since: {shown(why)}",
            f"    Q {shown(former['question'])}",
            f"    A {shown(former['answer'])}",
        ]
    for each in found["matches"]:
        lines += _match(each)
    return lines


def _match(each: Mapping[str, Any]) -> list[str]:
    lines = [f"{each['rank']:>4}. {each['task_type']} (similarity {each['similarity']:.3f})"]
    if each["fits"] is not None:
        lines += [f"      fits: {shown(each['fits'])}", *_by(each["filtered_by"], 8)]
    for reject in each["rejected"]:
        variant = f" ({reject['variant']})" if reject["variant"] else ""
        lines.append(f"      OUT at {reject['stage']}{variant}: {reject['reason']} ({shown(reject['detail'])})")
        lines += _by(reject["by"] or (each["filtered_by"] if reject["stage"] == "filter" else None), 8)
    lines += [f"      PENDING: {stage} has not been answered" for stage in each["waits_for"]]
    for pair in each["pairs"]:
        lines += _pair(pair)
    return lines


def _pair(pair: Mapping[str, Any]) -> list[str]:
    fate = {True: "SAMPLE", False: f"OUT at vote ({pair['reason']}):", None: "PENDING, votes are missing:"}[
        pair["accepted"]
    ]
    lines = [f"      {fate} pair {pair['pair'][:12]} ({pair['variant']})", f"        Q {shown(pair['question'])}"]
    if pair["reasoning"]:
        lines.append(f"        R {shown(pair['reasoning'])}")
    lines += [f"        A {shown(pair['answer'])}", *_by(pair["written_by"], 10)]
    for vote in pair["votes"]:
        value = "abstains" if vote["vote"] is None else vote["vote"]
        audit = " (audit: counts for statistics alone)" if vote["audit"] else ""
        lines += [f"        {shown(vote['judge'])}: {value}, {shown(vote['reason'])}{audit}", *_by(vote["by"], 10)]
    if pair["accepted"]:
        lines.append(f"        released in {', '.join(pair['releases']) or 'no release'}")
        if pair["not_released"]:
            lines.append(f"        not in the latest: {shown(pair['not_released'])}")
    return lines


def _by(by: Mapping[str, Any] | None, indent: int) -> list[str]:
    if by is None:
        return []
    model = shown(by["model"]) + (f" revision {shown(by['revision'])}" if by["revision"] else "")
    shared = f" for {by['units']} units" if by["units"] > 1 else ""
    tries = f", {by['attempts']} attempts" if by["attempts"] > 1 else ""
    prompt, request = f"prompt {by['prompt']} {by['prompt_hash'][:8]}", f"request {shown(by['request'] or '-')}"
    taken = f"{by['at']}, {by['seconds']:.1f} s{tries}, {by['tokens']:,} tokens, ${by['cost']:.4f}{shared}"
    return [f"{'':{indent}}by {model}, {prompt}, {request}, {taken}"]


def _task_type(found: Mapping[str, Any]) -> list[str]:
    lines = [f"task type {found['task_type']}"]
    for each in found["history"]:
        origin = f", origin {each['origin']}" if "origin" in each else ""
        lines.append(f"  version {each['version']} ({shown(each['by'])}): {each['what']}{origin}")
    if (about := found["history"][-1].get("about")) is not None:
        lines.append(f"  {shown(about)}")
    lines.append(
        f"  matched to {found['matched']:,} images, fits {found['fitting']:,}; {found['written']:,} pairs, "
        f"{found['accepted']:,} accepted"
    )
    lines += [f"  {count:>9,} out at {reason}" for reason, count in found["rejected"].items()]
    if found["unfinished_shards"]:
        lines.append(f"  {found['unfinished_shards']:,} shards are not finished: what is missing there is not counted")
    lines += [f"  {name}: {count:,} samples" for name, count in found["releases"].items()] or ["  in no release"]
    return lines
