"""The text of `finetune` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskgalaxy_ops.evaluate.run import Scored
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.storage import keys


def scored(found: Scored) -> list[str]:
    """Scores before and after with their controls, benchmark by benchmark."""
    lines = []
    for each in found.comparisons:
        shown = ", ".join(f"{name} {value.value:.2f}" for name, value in each.scores.items())
        lines.append(f"{each.benchmark}, {each.family or 'all'} ({each.questions:,} questions): {shown}")
        gain = each.gain
        lines.append(f"  gain {gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]: {each.verdict}")
    for score in found.scores:
        if score.benchmark not in {each.benchmark for each in found.comparisons}:
            lines.append(f"{score.benchmark}: {score.method} {score.value:g}")
    if found.unrankable:
        lines.append(
            f"{found.unrankable:,} held-out questions cannot be ranked: a long answer, or the only one of its task type"
        )
    return lines


def recipes(found: Sequence[Recipe]) -> list[str]:
    return [f"{each.name:<24} {', '.join(each.trainers):<32} {each.about}" for each in found]


def tuned(results: Mapping[str, Mapping[str, Any]], store: str, found: Scored) -> list[str]:
    """The checkpoint and losses of each job, and where the result card lies. results: by role. store: its URL."""
    lines = []
    for role, result in results.items():
        curve = f", loss {result['loss_first']:.2f} to {result['loss_last']:.2f}" if result.get("loss_first") else ""
        lines.append(f"{role:<8} {result['checkpoint']}{curve}")
    return [*lines, f"result card: {store.rstrip('/')}/{keys.report(found.page)}"]
