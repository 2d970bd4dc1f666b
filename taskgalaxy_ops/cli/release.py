"""The command that makes a release."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.text import release as release_text


def add(add_command: AddCommand) -> None:
    """Add `release`."""
    sub = add_command(
        "release", _release, "make an immutable data set of all samples: LLaVA JSON, Parquet, card, manifest"
    )
    sub.add_argument("--partial", action="store_true", help="although something is pending; the release says so")
    sub.add_argument(
        "--renew",
        action="store_true",
        help="anew, although only an earlier version of TaskGalaxy made the latest otherwise",
    )
    sub.add_argument("--to", type=Path, metavar="FOLDER", help="copy it there, too")


def _release(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipt = publish.publish(workspace, partial=chosen.partial, renew=chosen.renew, progress=progress)
    local = publish.fetch(workspace, receipt.release, chosen.to) if chosen.to else None
    value = {**asdict(receipt), "local": str(local) if local else None}
    say(chosen, value, release_text.released(receipt, local))
    return 0
