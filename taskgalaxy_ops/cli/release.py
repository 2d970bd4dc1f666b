"""The commands that make a release, export or push one, compare two, and mix them with base data."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli import release_diff, release_mix
from taskgalaxy_ops.cli.common import LOST, AddCommand, say, workspace_of
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.extensions import RELEASE_FORMATS
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.export import export
from taskgalaxy_ops.release.push import destination, push
from taskgalaxy_ops.release.releases_log import chosen as chosen_release
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
    sub.add_argument("--to", type=Path, metavar="FOLDER", help="export it there, too, with all its images")
    actions = sub.add_subparsers(metavar="ACTION")
    _add_export(add_command, actions)
    _add_push(add_command, actions)
    release_diff.add(add_command, actions)
    release_mix.add(add_command, actions)


def _release(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipt = publish.publish(workspace, partial=chosen.partial, renew=chosen.renew, progress=progress)
        found = export(workspace, receipt.release, chosen.to, None, progress) if chosen.to else None
    value = {**asdict(receipt), "local": str(found.folder) if found else None}
    lines = release_text.released(receipt)
    say(chosen, value, [*lines, *release_text.exported(found)] if found else lines)
    return LOST if found and found.referred else 0


def _add_export(add_command: AddCommand, actions: Any) -> None:
    about = "put a release into a folder to train on as it lies: in any formats, with all its images"
    sub = add_command("export", _export, about, actions, "again")
    sub.epilog = (
        f"Exit code {LOST}: images are not in the store any more, so that rows only name them. The same command goes "
        "on where it ended, and takes out what was taken down since."
    )
    sub.add_argument("version", nargs="?", metavar="VERSION", help="such as v000002; default: the latest")
    sub.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="in which a folder of its name is made")
    names = ", ".join(RELEASE_FORMATS.shipped)
    sub.add_argument(
        "--format",
        action="append",
        metavar="NAME",
        help=f"one of {names}, or a package's; repeatable; default: those that it was made with",
    )


def _export(chosen: argparse.Namespace) -> int:
    if odd := [name for name in chosen.format or () if not RELEASE_FORMATS.knows(name)]:
        raise SettingsError(f"--format {odd[0]}: should be {RELEASE_FORMATS.told()}.")
    workspace = workspace_of(chosen)
    one = chosen_release(workspace, chosen.version, "export")
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = export(workspace, one, chosen.to, chosen.format, progress)
    say(chosen, asdict(found), release_text.exported(found))
    return LOST if found.referred else 0


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
    one = chosen_release(workspace, chosen.release, "push")
    to = destination(workspace, one, chosen.destination, public=chosen.public, endpoint=chosen.endpoint)
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipt = push(workspace, one, to, images=not chosen.without_images, progress=progress)
    say(chosen, asdict(receipt), release_text.pushed(receipt))
    return 0
