"""The text of `status`."""

from __future__ import annotations

from taskgalaxy_ops.generation.stages import STAGE
from taskgalaxy_ops.operations.status import StageStatus, Status
from taskgalaxy_ops.reports.text.targets import targets
from taskgalaxy_ops.reports.text.units import UNITS
from taskgalaxy_ops.sources.left_out import told
from taskgalaxy_ops.text import moment, shown

# --- status


def status(found: Status) -> list[str]:
    """The store's taxonomy, spending, sources, stages, releases and running fine-tunes."""
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
        if passed_by := told(each.left_out):
            lines.append(f"          {passed_by}")
    if not found.sources:
        lines.append("source    none yet: run `taskgalaxy ingest`")
    for stage in found.stages:
        lines += _stage(stage)
    lines += targets(found.targets)
    if found.lost.reasons:
        lines.append(f"lost      {found.lost.words()}")
    lines += _pending(found)
    lines += [
        f"away      {each.model}: has served nothing since {moment(each.since)} UTC, tried last {moment(each.seen)} "
        f"({shown(each.why)})"
        for each in found.outages
    ]
    lines += [
        f"release   v{each['version']:06d}: {each['samples']:,} samples{' (partial)' if each['partial'] else ''}"
        for each in found.releases
    ]
    return lines + [f"training  job {key[:16]} has not ended" for key in found.finetunes]


def _pending(found: Status) -> list[str]:
    """What has no answer, by stage and by why."""
    if found.pending is not None:
        return []
    lines = [
        f"{each.stage}: {each.units:,} {STAGE[each.stage].planned}, {each.why}"
        + (f" ({shown(each.detail)})" if each.detail else "")
        for each in found.waiting.units
    ]
    if found.waiting.uncounted:
        lines.append(f"{found.waiting.uncounted:,} more image shards were not looked at")
    if lines:
        lines.append("`taskgalaxy plan` says how much may follow from it")
    else:
        lines.append("nothing has to be asked: `taskgalaxy generate` puts together what is answered")
    return [f"{'' if number else 'pending':<9} {line}" for number, line in enumerate(lines)]


def _stage(each: StageStatus) -> list[str]:
    unit_in, unit_out = UNITS[each.stage]
    shards = f"{each.shards_there:,} of {each.shards:,} shards"
    asked = f"   {each.calls:,} calls, {each.tokens:,} tokens, ${each.cost:.4f}" if each.calls else ""
    line = (
        f"{each.stage:<9} {shards:<22} {each.units_in:>9,} {unit_in:<18} -> {each.units_out:>9,} {unit_out:<9}{asked}"
    )
    return [line.rstrip(), *(f"{'':33}{number:>9,} {reason}" for reason, number in each.rejects.items())]
