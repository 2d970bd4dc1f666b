"""The text of `benchmarks`."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.operations.benchmarks import Added
from taskgalaxy_ops.storage.benchmark_log import BenchmarkEntry
from taskgalaxy_ops.text import moment, shown


def added(found: Added) -> list[str]:
    """What was added, and what could not be taken."""
    one = found.benchmark
    what = "added" if found.made else "there already, with the same items"
    lines = [
        f"{shown(one.name)}: {what}. {one.items:,} items, {found.questions:,} different questions, "
        f"{found.pictures:,} different pictures"
    ]
    return [*lines, *_unread(one)]


def listed(found: Sequence[BenchmarkEntry]) -> list[str]:
    """A benchmark a line."""
    if not found:
        return ["The store knows no benchmark. Add one: `taskgalaxy benchmarks add NAME LOCATION`."]
    lines = []
    for one in found:
        lines.append(f"{shown(one.name)}: {one.items:,} items, of {moment(one.at)} UTC, from {shown(one.location)}")
        lines += _unread(one)
    return lines


def _unread(one: BenchmarkEntry) -> list[str]:
    return [f"  not taken: {number:,} {why}" for why, number in one.unread.items()]
