"""The text of `release diff`, and what its page has in common with it."""

from __future__ import annotations

import json
from typing import Any

from taskgalaxy_ops.release.diff import ReleaseDiff
from taskgalaxy_ops.reports.text.release import moved
from taskgalaxy_ops.text import shown

_VALUE = 60  # characters of a setting's value


def diff(found: ReleaseDiff) -> list[str]:
    """The lines of the command."""
    rows = [("", found.before, found.after), ("samples", *(f"{number:,}" for number in found.samples))]
    rows += [(name, was, now) for name, was, now in setting_rows(found)]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        *lead(found),
        *(f"  {number:>9,}  {what}" for what, number in counts(found)),
        *moved(found.moved),
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows),
    ]


def lead(found: ReleaseDiff) -> list[str]:
    """What the numbers are of."""
    lines = [f"{found.after} against {found.before}"]
    if not found.exact:
        lines.append(
            f"{found.after} is not what would be released today: of samples that its rules did not leave out, and "
            "whose image and task type are there still, it is not known why they went."
        )
    return lines


def counts(found: ReleaseDiff) -> list[tuple[str, int]]:
    """What happened to how many samples."""
    return [
        ("in both", found.kept),
        *([("of them with a task type renamed since", found.renamed)] if found.renamed else []),
        ("added", found.added),
        ("changed: other words for the same image, task type and form", found.changed),
        *((f"gone: {why}", number) for why, number in found.gone.items()),
    ]


def setting_rows(found: ReleaseDiff) -> list[tuple[str, str, str]]:
    """What the two were made with otherwise; prompts by the beginning of their hash."""
    return [(each.name, _value(each.before), _value(each.after)) for each in found.settings]


def _value(value: Any) -> str:
    if value is None:
        return "-"
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    said = shown(said)
    return said if len(said) <= _VALUE else f"{said[: _VALUE - 1]}…"
