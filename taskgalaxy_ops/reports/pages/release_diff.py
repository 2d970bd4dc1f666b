"""The page of `release diff`: the text's tables, and samples before and after side by side."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.release.diff import Example, ReleaseDiff, Words
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.reports.text import release_diff as text
from taskgalaxy_ops.reports.text.release import moved

_IMAGE = 16  # hex digits of an image's id


def release_diff_page(found: ReleaseDiff) -> str:
    """The page (HTML)."""
    numbers = [(what, f"{number:,}") for what, number in text.counts(found)]
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Samples", ("what", "number"), numbers),
        ("Made with", ("", found.before, found.after), text.setting_rows(found)),
    ]
    groups: dict[str, list[Example]] = {}
    for each in found.examples:
        groups.setdefault(_kind(each), []).append(each)
    tables += [
        (
            f"Examples: {kind}",
            ("image", "task type", found.before, found.after),
            [(each.image[:_IMAGE], each.task_type, _words(each.before), _words(each.after)) for each in examples],
        )
        for kind, examples in groups.items()
    ]
    title = f"{found.after} against {found.before}"
    return table_page(title, [*text.lead(found)[1:], *moved(found.moved)], tables, simulated=found.simulated)


def _kind(each: Example) -> str:
    if each.before and each.after:
        return "changed"
    return "added" if each.before is None and each.after else f"gone: {each.why}"


def _words(words: Words | None) -> str:
    return "" if words is None else " → ".join(words)
