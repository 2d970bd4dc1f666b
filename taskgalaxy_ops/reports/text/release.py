"""The text of `release` and `pilot`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskgalaxy_ops.release.publish import ReleaseReceipt


def released(receipt: ReleaseReceipt, local: Path | None) -> list[str]:
    one = receipt.release
    made = "made" if receipt.made else "not made again: equal to the latest"
    lines = [
        f"release {one.name} ({made}{', PARTIAL' if one.partial else ''}): {one.samples:,} samples of "
        f"{one.task_types:,} task types from {one.images:,} images",
        f"  {receipt.path}",
    ]
    return [*lines, f"  copied to {local}"] if local else lines


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
