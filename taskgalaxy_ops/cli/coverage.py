"""`coverage`: what each task type has, what starves, and what a pile of images would add."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, positive, say, workspace_of
from taskgalaxy_ops.generation.coverage import coverage
from taskgalaxy_ops.operations.coverage import report, targets_of
from taskgalaxy_ops.operations.coverage_groups import groups
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages import coverage as page
from taskgalaxy_ops.reports.text import coverage as coverage_text
from taskgalaxy_ops.sources.originals import read_image

_LINES = 20  # task types that the text shows


def add(add_command: AddCommand) -> None:
    """Add `coverage`."""
    sub = add_command(
        "coverage", _coverage, "which task types starve or flood, and which images fit none; asks nothing"
    )
    sub.add_argument("--branch", metavar="PATH", help="only task types at or below this node")
    sub.add_argument("--below", type=positive, metavar="SAMPLES", help="list only task types with fewer samples")
    sub.add_argument(
        "-n",
        "--number",
        type=positive,
        metavar="N",
        help=f"task types listed, worst first; default: {_LINES}, in JSON all",
    )
    sub.add_argument(
        "--target",
        type=positive,
        metavar="SAMPLES",
        help="that each task type should have; default: the settings' targets, or the median of those that have any",
    )
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page: a treemap, the list, what fits nothing")


def _coverage(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = coverage(workspace, progress)
    targets = targets_of(workspace.settings, found, chosen.target)
    most = chosen.number or (None if chosen.json else _LINES)
    made = report(found, targets, branch=chosen.branch, below=chosen.below, most=most)
    value: dict[str, Any] = asdict(made)
    lines = coverage_text.coverage(made)
    if chosen.html or chosen.json:
        alike = groups(workspace, found)
        value["groups"] = [asdict(group) for group in alike]
    if chosen.html:
        html = page.coverage_page(
            found,
            targets,
            report(found, targets, most=1),
            alike,
            lambda image, side: thumbnail(read_image(workspace, image), side),
            simulated=workspace.settings.simulated,
        )
        page.write(chosen.html, html)
        value["page"] = str(chosen.html.resolve())
        lines.append(f"page: {value['page']}")
    say(chosen, value, lines)
    return 0
