"""The leak report on a release's card."""

from __future__ import annotations

from collections.abc import Mapping

from taskgalaxy_ops.release.decontaminate.leaks import LEAKS, counts
from taskgalaxy_ops.release.markdown import table, text
from taskgalaxy_ops.release.select import Selection


def section(plan: Selection) -> list[str]:
    """By benchmark, what was found and what was not compared; nothing is said where nothing was compared."""
    if not plan.inputs.benchmarks or not plan.settings.decontaminate:
        return []
    found = counts(plan.rows, plan.inputs.benchmarks)
    done = {
        "drop": "What is found is left out: see *benchmark image* and *benchmark question* in the funnel.",
        "mark": "What is found was **not left out**, only marked.",
    }
    unchecked = [
        (text(each.name), text(why), f"{number:,}") for each in found for why, number in sorted(each.unchecked.items())
    ]
    return [
        "## Benchmarks",
        "",
        "Images and questions were compared with the items of these benchmarks: images by their files, by PDQ (of the "
        "whole picture, of its mirror image and of its crops) and the edges in thumbnails"
        f"{', and by SSCD' if plan.settings.decontaminate.sscd else ''}, questions by their words and by embedding. "
        f" {done[plan.settings.decontaminate.rule]} `{LEAKS}` names sample and item.",
        "",
        *table(
            ("benchmark", "items", "images in it", "samples whose question is in it", "samples of which both are"),
            [
                (text(each.name), f"{each.items:,}", _by_kind(each.images), _by_kind(each.questions), f"{each.both:,}")
                for each in found
            ],
        ),
        *(["Not compared:", ""] if unchecked else []),
        *(table(("benchmark", "what", "number"), unchecked) if unchecked else []),
        "Nothing was compared with benchmarks that are not named here. A translated question is found only where the "
        "encoder reads both and `release.decontaminate.question_terms` is 0; a small part of a picture is not.",
        "",
    ]


def _by_kind(found: Mapping[str, int]) -> str:
    total = sum(found.values())
    kinds = ", ".join(f"{text(kind)} {number:,}" for kind, number in sorted(found.items()))
    return f"{total:,} ({kinds})" if found else "0"
