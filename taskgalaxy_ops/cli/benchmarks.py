"""`benchmarks`: whose items a release is not to hold, added, listed, compared, removed."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of, write_whole
from taskgalaxy_ops.operations import benchmarks
from taskgalaxy_ops.operations.leaks import leak_report
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages.leaks import leaks_page
from taskgalaxy_ops.reports.text import benchmarks as text
from taskgalaxy_ops.sources.originals import read_image


def add(add_command: AddCommand, commands: Any) -> None:
    """Add `benchmarks`."""
    group = commands.add_parser("benchmarks", help="benchmarks and held-out sets whose items a release is not to hold")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    sub = add_command("add", _add, "keep fingerprints and embeddings of a benchmark's items, and no copies", actions)
    sub.add_argument("name", metavar="NAME", help="such as MMBench; one of this name is replaced")
    sub.add_argument(
        "location",
        metavar="LOCATION",
        help="Parquet, JSON, JSON lines, TSV or CSV with its images, or images alone: a file, a folder, s3://bucket/prefix",
    )
    add_command("list", _list, "the benchmarks of the store", actions)
    sub = add_command("check", _check, "what of the store's samples is in them; releases nothing", actions)
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page with examples side by side")
    sub = add_command("remove", _remove, "no later release is compared with it", actions)
    sub.add_argument("name", metavar="NAME")


def _add(chosen: argparse.Namespace) -> int:
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = benchmarks.add(workspace_of(chosen), chosen.name, chosen.location, progress)
    say(chosen, asdict(found), text.added(found))
    return 0


def _list(chosen: argparse.Namespace) -> int:
    found = benchmarks.standing(workspace_of(chosen))
    say(chosen, {"benchmarks": [asdict(each) for each in found]}, text.listed(found))
    return 0


def _check(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = leak_report(workspace, progress)
    lines = text.checked(found)
    if chosen.html:
        write_whole(chosen.html, leaks_page(found, lambda image: thumbnail(read_image(workspace, image))))
        lines.append(f"page: {chosen.html.resolve()}")
    value = asdict(found)
    for each in value["examples"]:
        each["theirs"] = each["theirs"] and {**each["theirs"], "pictures": len(each["theirs"]["pictures"])}
    say(chosen, value, lines)
    return 0


def _remove(chosen: argparse.Namespace) -> int:
    benchmarks.remove(workspace_of(chosen), chosen.name)
    say(chosen, {"removed": chosen.name}, [f"{chosen.name}: removed; the log keeps that it was there"])
    return 0
