"""`judges`: how far the judges' votes can be relied on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of, write_whole
from taskgalaxy_ops.operations.judges import judge_report, pair_probabilities, record_judges
from taskgalaxy_ops.release.gold import read_gold
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages.judges import judges_page
from taskgalaxy_ops.reports.text.judges import judges
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.storage.shards import short
from taskgalaxy_ops.text import shown


def add(add_command: AddCommand) -> None:
    """Add `judges`."""
    sub = add_command("judges", _judges, "how right the judges are, by their votes and by a gold set; asks nothing")
    sub.add_argument(
        "--gold",
        type=Path,
        metavar="FILE",
        help="pairs with known verdicts: JSON Lines of {pair, right}, or CSV with these columns (.csv); default: what "
        "people voted (`taskgalaxy review`)",
    )
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page of the same")
    sub.add_argument(
        "--probabilities",
        type=Path,
        metavar="FILE",
        help="write each pair's probability of being right, JSON Lines of {pair, probability}",
    )

    sub.add_argument(
        "--record",
        action="store_true",
        help="keep how probably a pair is right by its votes, for vote.rule and release.probability",
    )


def _judges(chosen: argparse.Namespace) -> int:
    gold = read_gold(chosen.gold) if chosen.gold else None
    workspace = workspace_of(chosen)
    people = None if chosen.gold else ReviewLog(workspace.store).read()
    if people is not None:
        gold = people.verdicts() or None
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = judge_report(workspace, gold, progress)
        value, lines = asdict(found), judges(found)
        if people is not None and gold:
            lines.append("The gold set is what people voted: see `taskgalaxy review list`.")
        if chosen.probabilities:
            rows = pair_probabilities(workspace, progress)
            text = (json.dumps({"pair": pair, "probability": each}) + "\n" for pair, each in rows)
            write_whole(chosen.probabilities, "".join(text))
            lines.append(f"{len(rows):,} probabilities: {chosen.probabilities.resolve()}")
        if chosen.record:
            measure = record_judges(workspace, gold, progress)
            value["entry"] = measure.number
            names = ", ".join(map(shown, measure.judges))
            lines.append(
                f"entry {measure.number} ({short(measure.hash)}) is the newest: {names}, by {measure.pairs:,} pairs"
            )
    if chosen.html:
        write_whole(chosen.html, judges_page(found))
        lines.append(f"page: {chosen.html.resolve()}")
    say(chosen, value, lines)
    return 0
