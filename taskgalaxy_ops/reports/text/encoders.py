"""The text of a comparison of two encoders."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.operations.compare_encoders import Counts, EncoderComparison
from taskgalaxy_ops.text import shown


def compared(found: EncoderComparison) -> list[str]:
    """What two encoders find for the same images: overall, and by first-level node."""
    lines = [*lead(found), ""]
    rows = [header(found), *overall(found), *by_branch(found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *cells]))
    return lines


def header(found: EncoderComparison) -> Sequence[str]:
    """Of ``overall`` and ``by_branch``."""
    return ("", *names(found), "both", "overlap")


def names(found: EncoderComparison) -> tuple[str, str]:
    """What the two encoders are called in a table's header."""
    one, other = (name.partition(" ")[0] for name in (found.first, found.second))
    return (one, other) if one != other else ("the first", "the second")


def overall(found: EncoderComparison) -> list[Sequence[str]]:
    """Rows of ``header``: matches, and task types that are found for any image."""
    return [("matches", *_numbers(found.matches)), ("task types matched", *_numbers(found.task_types))]


def by_branch(found: EncoderComparison) -> list[Sequence[str]]:
    """Rows of ``header``: the matches of each first-level node."""
    return [(shown(name), *_numbers(each)) for name, each in found.branches.items()]


def lead(found: EncoderComparison) -> list[str]:
    """What was compared, and how much they agree, in sentences."""
    drawn = "all" if found.images == found.of else f"drawn by hash from {found.of:,}"
    return [
        f"First: {shown(found.first)}, the store's encoder. Second: {shown(found.second)}.",
        f"Of an image's {found.k} nearest task types, both find {found.overlap:.0%} on average; all of them for "
        f"{found.same:,} images, none for {found.disjoint:,}. Compared: {found.images:,} images, {drawn}.",
    ]


def _numbers(each: Counts) -> Sequence[str]:
    return f"{each.first:,}", f"{each.second:,}", f"{each.both:,}", f"{each.overlap:.0%}"
