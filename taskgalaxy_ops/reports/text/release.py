"""The text of `release`, `release push` and `pilot`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from taskgalaxy_ops.release.changes import ReleaseChanges
from taskgalaxy_ops.release.export import Exported
from taskgalaxy_ops.release.publish import ReleaseReceipt
from taskgalaxy_ops.release.push import PushedCopy, PushReceipt


def released(receipt: ReleaseReceipt) -> list[str]:
    one = receipt.release
    made = "made" if receipt.made else "not made again: equal to the latest"
    lines = [
        f"release {one.name} ({made}{', PARTIAL' if one.partial else ''}): {one.samples:,} samples of "
        f"{one.task_types:,} task types from {one.images:,} images",
        f"  {receipt.path}",
    ]
    if receipt.changes:
        lines.append(f"  {changed(receipt.changes)}")
        lines += moved(receipt.changes.moved)
    if receipt.older:
        lines.append(
            "  An earlier version made it of the same samples, and without what this version adds to a release: the "
            "pictures that the teacher was sent, croissant.json. `taskgalaxy release --renew` makes one that has it."
        )
    return lines


def exported(found: Exported) -> list[str]:
    """Where a release was exported to, and whether it is whole."""
    lines = [f"  exported to {found.folder}: {found.samples:,} samples as {', '.join(found.formats)}"]
    if not found.referred:
        return [*lines, f"  It is whole: all {found.images:,} images are in it."]
    return [
        *lines,
        f"  IT IS NOT WHOLE: {found.referred:,} of {found.images:,} images are not in the store any more. Rows name "
        "where they lay, and trainers fail on these.",
        "  `taskgalaxy verify` says what the store lacks. Once it is back there, export again: the rest stays.",
    ]


def pushed(receipt: PushReceipt) -> list[str]:
    """The lines of `release push`."""
    lines = [
        f"release {receipt.release} is at {receipt.to}: {receipt.files:,} files, {receipt.sent:,} of them sent now"
    ]
    return [*lines, f"  revision {receipt.revision}"] if receipt.revision else lines


def pushed_copies(copies: Iterable[PushedCopy]) -> list[str]:
    """The lines on copies outside the store that hold something withdrawn."""
    return [
        f"STILL PUSHED: {copy.to} holds {'' if copy.whole else 'a part of '}release {copy.release} of {copy.at}, with "
        f"what was withdrawn since. `taskgalaxy release push` there again takes it out, or delete it."
        for copy in copies
    ]


def changed(found: ReleaseChanges) -> str:
    """What a release gained and lost against the one before."""
    lost = f"{sum(found.lost.values()):,} lost ({reasons(found.lost)})" if found.lost else "none lost"
    renamed = f", {found.renamed:,} of them with a task type renamed since" if found.renamed else ""
    return f"against {found.since}: {found.gained:,} samples gained, {lost}, {found.kept:,} in both{renamed}"


def moved(found: Mapping[str, int]) -> list[str]:
    """What is said loudly of samples that changed sides; [] where none did."""
    if not found:
        return []
    return [
        f"  WARNING: samples changed sides: {reasons(found)}. A model that was trained on the earlier release may have "
        "seen what is now in test or validation; scores on the two are not comparable."
    ]


def reasons(lost: Mapping[str, int]) -> str:
    """Numbers of samples by why they are lost."""
    return "; ".join(f"{number:,} {why}" for why, number in lost.items())


def forecast(found: Mapping[str, Any] | None) -> list[str]:
    """The lines of a pilot's forecast; None: no image of the pilot has all its answers."""
    if found is None:
        return [
            "no forecast: no image of the pilot has all its answers, so that nothing is known of the cost. Run it "
            "again once the models answer."
        ]
    pilot = found["pilot"]
    partly = f", from the {pilot['answered']:,} of {pilot['images']:,} images of the pilot that are answered in full"

    def interval(name: str, form: str) -> str:
        low, expected, high = (format(found[name][each], form) for each in ("low", "expected", "high"))
        return f"{expected} (95 %: {low} to {high})"

    return [
        f"forecast for all {found['files']:,} files: {found['images']:,} images, about {found['samples']:,} samples"
        + (partly if pilot["answered"] < pilot["images"] else ""),
        f"  calls {interval('calls', ',.0f')}",
        f"  cost  ${interval('cost', ',.4f')}",
        f"  at list prices ${interval('list_cost', ',.4f')}",
    ]
