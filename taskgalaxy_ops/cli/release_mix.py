"""`release mix`: a release mixed with base data."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of
from taskgalaxy_ops.release.mixing.mix import mix
from taskgalaxy_ops.release.mixing.settings import load_mixture
from taskgalaxy_ops.release.mixing.writing import WRITERS
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.text import mixture as text


def add(add_command: AddCommand, actions: Any) -> None:
    """Add `mix` to the actions of `release`."""
    about = "mix releases with base data by weights, in a folder to train on as it lies"
    sub = add_command("mix", _mix, about, actions, "again")
    sub.epilog = (
        "The same command goes on where it ended, after a change of the mixture too, and takes out what is not in it "
        "any more. mixture.json says what went in."
    )
    sub.add_argument("mixture", type=Path, metavar="MIXTURE.yaml", help="its parts and their weights")
    sub.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="an empty one, or that of this mixture")
    names = ", ".join(WRITERS)
    sub.add_argument(
        "--format", action="append", metavar="NAME", help=f"one of {names}; repeatable; default: {next(iter(WRITERS))}"
    )


def _mix(chosen: argparse.Namespace) -> int:
    mixture = load_mixture(chosen.mixture)
    workspace = workspace_of(chosen) if any(part.release for part in mixture.parts) else None
    formats = chosen.format or [next(iter(WRITERS))]
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = mix(mixture, chosen.to, formats, workspace, progress)
    say(chosen, {**asdict(found), "unknown_licence": found.unknown_licence}, text.mixed(found))
    return 0
