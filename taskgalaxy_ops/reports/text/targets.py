"""The text on targets: how the task types stand."""

from __future__ import annotations

from taskgalaxy_ops.generation.targets import TargetCounts
from taskgalaxy_ops.text import shown


def targets(found: TargetCounts | None) -> list[str]:
    """A line of the numbers, and one of settings that concern no task type; nothing where there are no targets."""
    if found is None:
        return []
    told = [f"{number:,} {standing}" for standing, number in found.types.items() if number]
    told += [f"{found.without_images:,} that no image has among its nearest"] if found.without_images else []
    lines = [f"targets   task types: {', '.join(told) or 'none'}"]
    if found.unmet_branches:
        names = ", ".join(shown(branch) for branch in found.unmet_branches)
        lines.append(f"          no task type lies below targets.branches: {names}")
    return lines
