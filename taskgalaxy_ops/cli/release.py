"""The commands that make a release, push one and compare two."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli import release_diff
from taskgalaxy_ops.cli.common import AddCommand, say, workspace_of
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.push import destination, push
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.text import release as release_text
from taskgalaxy_ops.workspace import Workspace


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
    actions = sub.add_subparsers(metavar="ACTION")
    _add_push(add_command, actions)
    release_diff.add(add_command, actions)


def _release(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipt = publish.publish(workspace, partial=chosen.partial, renew=chosen.renew, progress=progress)
    local = publish.fetch(workspace, receipt.release, chosen.to) if chosen.to else None
    value = {**asdict(receipt), "local": str(local) if local else None}
    say(chosen, value, release_text.released(receipt, local))
    return 0


def _add_push(add_command: AddCommand, actions: Any) -> None:
    about = "copy a release to the Hugging Face hub, or to another bucket or folder"
    sub = add_command("push", _push, about, actions, "again")
    sub.epilog = (
        "A repository is made private. What is there already is not sent again, so that the same command goes on after "
        "an interruption. What a take-down withdrew is never sent, and an earlier push of it is erased there."
    )
    sub.add_argument("destination", metavar="TO", help="hf://OWNER/NAME, s3://bucket/prefix or file:///folder")
    sub.add_argument("--release", metavar="VERSION", help="such as v000002; default: the latest")
    sub.add_argument("--public", action="store_true", help="to a repository of the hub that everybody can read")
    sub.add_argument("--without-images", action="store_true", help="leave out images/: the Parquet files hold them too")
    sub.add_argument("--endpoint", metavar="URL", help="of the bucket's service; default: that of the settings")


def _push(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    one = _chosen_release(workspace, chosen.release)
    to = destination(workspace, one, chosen.destination, public=chosen.public, endpoint=chosen.endpoint)
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipt = push(workspace, one, to, images=not chosen.without_images, progress=progress)
    say(chosen, asdict(receipt), release_text.pushed(receipt))
    return 0


def _chosen_release(workspace: Workspace, name: str | None) -> publish.Published:
    """A release by its name; None: the latest. Raises SourceError where there is none."""
    releases = {one.name: one for one in publish.published(workspace)}
    if not releases:
        raise SourceError("push: there is no release yet. `taskgalaxy release` makes one.")
    if name is not None and name not in releases:
        raise SourceError(f"push: there is no release {name!r}. There are {', '.join(releases)}.")
    return releases[name] if name is not None else list(releases.values())[-1]
