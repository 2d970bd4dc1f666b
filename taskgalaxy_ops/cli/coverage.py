"""`coverage`: what each task type has, what it wants, and what a pile of images would add."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, positive, say, workspace_of, write_whole
from taskgalaxy_ops.cli.sources import chosen_source
from taskgalaxy_ops.generation.coverage import answered, as_entry, coverage
from taskgalaxy_ops.generation.starving import record
from taskgalaxy_ops.operations.coverage import branch_of, listed, report, targets_of
from taskgalaxy_ops.operations.coverage_against import against
from taskgalaxy_ops.operations.coverage_groups import groups
from taskgalaxy_ops.operations.wishes import wishes
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages import coverage as page
from taskgalaxy_ops.reports.text import coverage as coverage_text

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
    sub.add_argument(
        "--wishes",
        type=Path,
        metavar="FILE",
        help="write the wish list, JSON: task types below their target, with texts to search images by, and examples",
    )
    sub.add_argument(
        "--against",
        metavar="LOCATION | SOURCE",
        help="say what images that are not registered would add, by their embeddings; registers and asks nothing",
    )
    sub.add_argument(
        "--record",
        action="store_true",
        help="number and keep what each task type has, for match.prefer_starving: the next run matches by it",
    )
    sub.add_argument("--limit", type=positive, metavar="FILES", help="of --against: files to read; default: all")
    sub.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of --against: of its kind; repeatable"
    )


def _coverage(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        seen = answered(workspace.snapshot(), progress) if chosen.wishes else None
        found = coverage(workspace, progress, seen)
        targets = targets_of(workspace, found, chosen.target)
        most = chosen.number or (None if chosen.json else _LINES)
        branch = branch_of(found, chosen.branch) if chosen.branch else None
        made = report(found, targets, branch=branch, below=chosen.below, most=most)
        value: dict[str, Any] = asdict(made)
        lines = coverage_text.coverage(made)
        if chosen.against:
            _, source = chosen_source(workspace.settings, workspace.s3_options, chosen.against, chosen.option)
            source = source.model_copy(update={"limit": chosen.limit or source.limit})
            added = against(workspace, source, found, targets, progress)
            value, lines = asdict(added), coverage_text.against(added, most)
        if chosen.record:
            entry = record(workspace, as_entry(found))
            value["entry"] = entry.number
            lines.append(f"coverage entry {entry.number} is the newest")
        if chosen.wishes:
            rows = listed(found, targets, branch).tolist()
            wanted = wishes(workspace, found, targets, rows, seen)
            write_whole(chosen.wishes, json.dumps(wanted.to_json(), ensure_ascii=False, indent=1) + "\n")
            value["wishes"] = str(chosen.wishes.resolve())
            lines.append(f"{len(wanted.wishes):,} wishes: {value['wishes']}")
    if chosen.html or (chosen.json and not chosen.against):
        alike = groups(workspace, found)
        value["groups"] = [asdict(group) for group in alike]
        if chosen.html:
            write_whole(chosen.html, page.coverage_page(workspace, found, targets, alike))
            value["page"] = str(chosen.html.resolve())
            lines.append(f"page: {value['page']}")
    say(chosen, value, lines)
    return 0
