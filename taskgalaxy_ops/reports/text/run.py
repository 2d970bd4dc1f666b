"""The text of ingest, of a run, of an expansion, of task types' versions, and of `verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation.lost import Lost
from taskgalaxy_ops.generation.run import RunResult
from taskgalaxy_ops.operations.verify import Findings
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.reports.console import usage_line
from taskgalaxy_ops.reports.text.units import UNITS
from taskgalaxy_ops.sources import left_out
from taskgalaxy_ops.sources.ingest import IngestReceipt
from taskgalaxy_ops.taxonomy.expand import ExpandResult
from taskgalaxy_ops.taxonomy.weaknesses import Weaknesses

_SHOWN = 20


def ingested(receipts: Sequence[IngestReceipt]) -> list[str]:
    lines = []
    for receipt in receipts:
        lines.append(
            f"{receipt.source}: {receipt.files:,} files, {receipt.images:,} images ({receipt.new_images:,} new, in "
            f"{receipt.new_shards} new shards), {len(receipt.rejects):,} rejects"
        )
        told = (left_out.unusual(receipt.unusual), left_out.told(receipt.left_out))
        lines += [f"  {line}" for line in told if line]
        lines += [f"  {reject.file!r}: {reject.reason} ({reject.detail})" for reject in receipt.rejects[:_SHOWN]]
        lines += more(len(receipt.rejects) - _SHOWN)
    return lines


def more(count: int) -> list[str]:
    """A line on what a list leaves out, if it does."""
    return [f"  … and {count:,} more: --json names them all"] if count > 0 else []


def funnel(stages: Sequence[StageCounts]) -> list[str]:
    """Units in and out of each stage, and the number of rejects by reason."""
    lines = []
    for counts in stages:
        unit_in, unit_out = UNITS[counts.stage]
        lines.append(f"{counts.stage:<8} {counts.units_in:>9,} {unit_in:<18} -> {counts.units_out:>9,} {unit_out}")
        lines += [f"{'':8} {number:>9,} {reason}" for reason, number in counts.rejects.items()]
        if counts.pending:
            lines.append(f"{'':8} {counts.pending:>9,} pending")
    return lines


def lost(found: Lost) -> list[str]:
    """What ended without an answer by our fault or a model's, and how to ask again."""
    return [f"lost      {found.words()}"] if found.reasons else []


def ended(result: RunResult) -> list[str]:
    """What a run used (calls, tokens, money), and what is pending."""
    lines = [f"this run  {usage_line(result.usage)}"]
    if result.pending:
        lines.append(f"pending   {result.pending:,} units; run again to go on")
        lines += [f"          {reason}" for reason in result.reasons]
    return lines


def expanded(result: ExpandResult) -> list[str]:
    lines = [
        f"taxonomy version {result.version}: {len(result.added)} nodes added, {len(result.rejects)} proposals rejected"
    ]
    lines += [f"  + {node.path}" for node in result.added[:_SHOWN]]
    lines += more(len(result.added) - _SHOWN)
    told = [reject for reject in result.rejects if reject.reason != Reason.OVER_CAP]
    lines += [f"  - {reject.path!r}: {reject.reason} ({reject.detail})" for reject in told[:_SHOWN]]
    lines += more(len(told) - _SHOWN)
    if over := len(result.rejects) - len(told):
        lines.append(f"  {over:,} new ones are over the cap: raise --max-new or expand again")
    return [*lines, f"this run  {usage_line(result.usage)}"]


def weak_branches(found: Weaknesses, shown: int | None = None) -> list[str]:
    """A line for each branch, the weakest first. shown: at most so many, of those that are weaker than the average."""
    chosen = [each for each in found.branches if shown is None or each.weight > 1][:shown]
    return [f"{each.branch} x {each.weight:g} ({'; '.join(each.because)})" for each in chosen]


def versions(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"version {each['version']}: {each['leaves']:,} task types, by {each['origin']}"
        + (f", from version {each['base']}" if each.get("base") is not None else "")
        for each in shown
    ]


def verified(found: Findings) -> list[str]:
    counted = ", ".join(f"{number:,} {kind}s" for kind, number in sorted(found.checked.items()))
    lines = [f"{len(found.damage)} damaged of {counted}" if found.damage else f"all is well: {counted}", *found.damage]
    if found.altered:
        lines.append(
            f"{found.altered:,} written pairs are not what the model wrote: an older version dropped backslashes. "
            "`taskgalaxy answers read-again --altered` puts them right"
        )
    if found.unreadable:
        lines.append(f"{found.unreadable:,} written pairs can be read in several ways; today they would be asked again")
    return lines
