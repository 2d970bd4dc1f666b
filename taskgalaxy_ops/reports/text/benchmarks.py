"""The text of `benchmarks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskgalaxy_ops.operations.benchmarks import Added
from taskgalaxy_ops.operations.leaks import LeakReport
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


FOUND = ("benchmark", "items", "images in it", "samples whose question is in it", "samples of which both are")
UNCHECKED = ("benchmark", "what", "number")


def found_rows(found: LeakReport) -> list[tuple[str, ...]]:
    """A row a benchmark."""
    return [
        (shown(each.name), f"{each.items:,}", _by_kind(each.images), _by_kind(each.questions), f"{each.both:,}")
        for each in found.benchmarks
    ]


def unchecked_rows(found: LeakReport) -> list[tuple[str, ...]]:
    """What could not be compared."""
    return [(shown(each.name), why, f"{n:,}") for each in found.benchmarks for why, n in sorted(each.unchecked.items())]


def lead(found: LeakReport) -> list[str]:
    """What was compared, and what comes of it."""
    names = ", ".join(shown(each.name) for each in found.benchmarks)
    lines = [
        f"{found.samples:,} accepted pairs were compared with {names}. "
        + (
            f"A release leaves out {found.left_out:,} of them."
            if found.left_out or not any(each.images or each.questions for each in found.benchmarks)
            else "By the setting, what is found is only marked."
        )
    ]
    return lines + [f"{shown(name)}: its items cannot be shown: {why}" for name, why in found.unread.items()]


def checked(found: LeakReport) -> list[str]:
    """The text of `benchmarks check`."""
    lines = lead(found)
    for name, items, images, questions, both in found_rows(found):
        lines.append(f"{name}: {items} items; images in it: {images}; questions in it: {questions}; both: {both}")
    return lines + [f"  not compared: {name}: {number} {why}" for name, why, number in unchecked_rows(found)]


def _by_kind(found: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.items()))
    return f"{sum(found.values()):,} ({kinds})" if found else "0"


def _unread(one: BenchmarkEntry) -> list[str]:
    return [f"  not taken: {number:,} {why}" for why, number in one.unread.items()]
