"""`match --compare`, a second encoder beside the store's, and `doctor --encoder`, how the store's computes best."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops.cli.common import positive, say, workspace_of
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.operations.compare_encoders import IMAGES, compare, encoder_settings
from taskgalaxy_ops.operations.encoder_trials import encoder_trials
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages.encoder_comparison import comparison_page
from taskgalaxy_ops.reports.text import encoder_trials as trials_text
from taskgalaxy_ops.reports.text import encoders as encoders_text
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace


def add_compare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `match` that compare a second encoder with the store's."""
    group = sub.add_argument_group("a second encoder", "compared with the store's; asks nothing, and changes no match")
    group.add_argument("--compare", metavar="ENCODER", help="match nothing: tell what this encoder would find")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="of the second encoder, as in the settings: model=ViT-B-32; repeatable",
    )
    group.add_argument(
        "--sample", type=_count, default=IMAGES, metavar="N", help="images, drawn by hash; all; default: %(default)s"
    )
    group.add_argument("--to", type=Path, metavar="FILE", help="the page; default: among the store's reports")
    sub.set_defaults(command=_match, matching=sub.get_default("command"))


def add_trials(sub: argparse.ArgumentParser) -> None:
    """Add the option of `doctor` that tries the encoder's runtimes and precisions."""
    help_text = "instead: try the encoder's runtimes and precisions on this machine, for a minute, and recommend one"
    sub.add_argument("--encoder", action="store_true", help=help_text)
    sub.set_defaults(command=_doctor, examining=sub.get_default("command"))


def _doctor(chosen: argparse.Namespace) -> int:
    if not chosen.encoder:
        examining: int = chosen.examining(chosen)
        return examining
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = encoder_trials(workspace, progress)
    settings = workspace.settings.encoder
    value = {**asdict(found), "recommended": asdict(found.best), "advice": trials_text.recommended(found, settings)}
    say(chosen, value, trials_text.tried(found, settings))
    return 0


def _count(text: str) -> int | None:
    return None if text == "all" else positive(text)


def _match(chosen: argparse.Namespace) -> int:
    if chosen.compare:
        return _compare(chosen)
    if chosen.option or chosen.to:
        raise SettingsError("match: --option and --to belong to --compare. Name the second encoder with it.")
    matching: int = chosen.matching(chosen)
    return matching


def _compare(chosen: argparse.Namespace) -> int:
    workspace, other = workspace_of(chosen), encoder_settings(chosen.compare, chosen.option)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = compare(workspace, other, chosen.source, chosen.sample, progress)
    page = comparison_page(found, lambda image: thumbnail(read_image(workspace, image)))
    place = _written(workspace, page, f"{found.first}\x1f{found.second}", chosen.to)
    say(chosen, {**asdict(found), "page": place}, [*encoders_text.compared(found), "", f"page: {place}"])
    return 0


def _written(workspace: Workspace, page: str, of: str, to: Path | None) -> str:
    """Where the page was written: a file, or an object of the store that the same comparison replaces next time."""
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(page, encoding="utf-8")
        return str(to.resolve())
    key = keys.report(f"encoders-{fingerprint('encoder comparison', of)[:16]}")
    workspace.store.replace(key, page.encode())
    return f"{workspace.store.url.rstrip('/')}/{key}"
