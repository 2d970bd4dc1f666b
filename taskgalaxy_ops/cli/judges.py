"""`judges`: how far the judges' votes can be relied on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of, write_whole
from taskgalaxy_ops.operations.judges import judge_report, pair_probabilities
from taskgalaxy_ops.release.gold import read_gold
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages.judges import judges_page
from taskgalaxy_ops.reports.text.judges import judges


def add(add_command: AddCommand) -> None:
    """Add `judges`."""
    sub = add_command("judges", _judges, "how right the judges are, by their votes and by a gold set; asks nothing")
    sub.add_argument(
        "--gold",
        type=Path,
        metavar="FILE",
        help="pairs with known verdicts: JSON Lines of {pair, right}, or CSV with these columns (.csv)",
    )
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page of the same")
    sub.add_argument(
        "--probabilities",
        type=Path,
        metavar="FILE",
        help="write each pair's probability of being right, JSON Lines of {pair, probability}",
    )


def _judges(chosen: argparse.Namespace) -> int:
    gold = read_gold(chosen.gold) if chosen.gold else None
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = judge_report(workspace, gold, progress)
        value, lines = asdict(found), judges(found)
        if chosen.probabilities:
            rows = pair_probabilities(workspace, progress)
            text = (json.dumps({"pair": pair, "probability": each}) + "\n" for pair, each in rows)
            write_whole(chosen.probabilities, "".join(text))
            lines.append(f"{len(rows):,} probabilities: {chosen.probabilities.resolve()}")
    if chosen.html:
        write_whole(chosen.html, judges_page(found))
        lines.append(f"page: {chosen.html.resolve()}")
    say(chosen, value, lines)
    return 0
