"""The text of `review`."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.operations.review import Drawn, Imported, Overview
from taskgalaxy_ops.storage.review_log import VERDICTS
from taskgalaxy_ops.text import shown


def drawn(found: Sequence[Drawn]) -> list[str]:
    lines = []
    for each in found:
        verdict = "accepted" if each.accepted else "rejected"
        stratum = ", ".join(f"{name} {shown(value)}" for name, value in each.stratum.items())
        lines += [
            f"{each.pair.pair[:12]} ({verdict}; one of {each.of:,}{f': {stratum}' if stratum else ''})",
            *(f"  {mark} {shown(text)}" for turn in each.pair.turns for mark, text in zip("QA", turn, strict=True)),
        ]
    return [*lines, f"{len(found):,} pairs. `taskgalaxy review export` writes them for people to fill in."]


def imported(found: Imported) -> list[str]:
    lines = [f"{found.votes:,} votes added; {found.known:,} counted already"]
    if found.unknown:
        lines.append(f"  skipped, since the store has no such pair now: {', '.join(found.unknown)}")
    return lines


def overview(found: Overview) -> list[str]:
    if not found.entry:
        return ["no person has voted yet. `taskgalaxy review export` draws pairs to look at."]
    lines = [f"{found.pairs:,} pairs with a vote, {found.found_wrong:,} found wrong (entry {found.entry} of the log)"]
    for each in found.reviewers:
        counts = ", ".join(f"{each.verdicts.get(verdict, 0):,} {verdict}" for verdict in VERDICTS)
        lines.append(f"  {shown(each.reviewer)}: {counts}; {each.corrections:,} corrected")
    if found.agreed is not None:
        alpha = "not defined" if found.alpha is None else f"{found.alpha:.3f}"
        lines.append(
            f"  on {found.shared:,} pairs two or more are sure: {found.agreed:.1%} of their votes agree, "
            f"Krippendorff's alpha {alpha}"
        )
    return lines
