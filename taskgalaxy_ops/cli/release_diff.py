"""`release diff`: what one release has against another."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of, write_whole
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.diff import release_diff
from taskgalaxy_ops.reports.pages.release_diff import release_diff_page
from taskgalaxy_ops.reports.text import release_diff as text


def add(add_command: AddCommand, actions: Any) -> None:
    """Add `diff` to the actions of `release`."""
    about = "say what one release has against another, and why; asks nothing"
    sub = add_command("diff", _diff, about, actions, "again")
    sub.add_argument("versions", nargs="*", metavar="VERSION", help="two, such as v000001; default: the last two")
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page of it, with examples")


def _diff(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    versions = chosen.versions or [each.name for each in publish.published(workspace)[-2:]]
    if len(versions) != 2:
        raise SettingsError("release diff: name two releases, the earlier one first: release diff v000001 v000002")
    found = release_diff(workspace, *versions)
    lines = text.diff(found)
    if chosen.html:
        write_whole(chosen.html, release_diff_page(found))
        lines.append(f"page: {chosen.html.resolve()}")
    say(chosen, asdict(found), lines)
    return 0
