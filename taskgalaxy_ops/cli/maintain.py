"""Commands that maintain a store: takedown, forget, answers, gc, compact, upgrade."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, loaded, say, to_json, workspace_of
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.operations import answers, forget, gc, takedown, upgrade
from taskgalaxy_ops.records import begins_id, is_id
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.text.release import pushed_copies
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.workspace import Workspace

_DIGITS = 8  # of an image's id, at least, by which it is named
_SPAN = re.compile(r"(\d+)([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def add(add_command: AddCommand, commands: Any) -> None:
    """Add the parsers of takedown, forget, answers, gc, compact and upgrade."""

    sub = add_command("takedown", _takedown, "erase images from all that was made, and let none bring them back")
    sub.add_argument("images", nargs="*", metavar="IMAGE", help="an id, the beginning of one, or the image's file")
    sub.add_argument("--list", type=Path, metavar="FILE", help="a file that names one a line")
    sub.add_argument("--reason", default="", help="kept in the registry")
    sub.add_argument("--finish", action="store_true", help="go on with all take-downs so far, and with what came late")
    sub.add_argument("--yes", action="store_true", help="do not ask: there is no way back")
    sub = add_command("forget", _forget, "let answers be asked again; shows what they cost, and asks before")
    sub.add_argument("--model", help="of this model, by its name in the settings")
    sub.add_argument("--since", type=_moment, metavar="T", help="given since: 2026-11-24, 2026-11-24T09:30, or 2d, 6h")
    sub.add_argument("--until", type=_moment, metavar="T")
    sub.add_argument(
        "--where",
        action="append",
        default=[],
        type=_condition,
        metavar="NAME=VALUE",
        help="stage, image, source, terminal (a reason, or any), answer.FIELD (~TEXT: holds it); repeatable: all hold",
    )
    sub.add_argument("--dry-run", action="store_true", help="only show")
    sub.add_argument("--yes", action="store_true", help="do not ask")
    group = commands.add_parser("answers", help="replies that were paid for: export, import, read again")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    sub = add_command("export", _export, "write every reply from which an answer was taken (JSON Lines)", actions)
    sub.add_argument("file", type=Path, help="gzip'd if its name ends in .gz")
    sub = add_command(
        "import",
        _import,
        "take over answers of another store: they are not paid for again",
        actions,
    )
    sub.add_argument("file", type=Path)
    sub = add_command("read-again", _read_again, "read kept replies by today's parser where none could", actions)
    sub.add_argument("--dry-run", action="store_true", help="only say how many answers it would give")
    sub.add_argument(
        "--altered",
        action="store_true",
        help="also put right written pairs that lost backslashes to an older version; judges vote on them anew",
    )
    sub = add_command("gc", _gc, "count what nothing refers to any more; --delete deletes it")
    sub.add_argument("--grace-days", type=float, default=gc.GRACE_SECONDS / 86400, help="default: %(default)g")
    sub.add_argument("--delete", action="store_true")
    add_command("compact", _compact, "compact long journals and the budget's ledger; safe beside runs")
    add_command(
        "upgrade",
        _upgrade,
        "bring a store of an earlier layout to this one",
    )


def _moment(text: str) -> float:
    if span := _SPAN.fullmatch(text):
        return time.time() - int(span[1]) * _SECONDS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 2026-11-24T09:30, or 2d, 6h, 30m") from error
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE, such as answer.vote=0")
    return name, value


def _confirmed(chosen: argparse.Namespace, question: str) -> bool:
    if chosen.yes:
        return True
    if not sys.stdin.isatty():
        print(f"{question} Nobody is there to ask: say --yes.", file=sys.stderr)
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _takedown(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    named = [*chosen.images, *(_lines_of(chosen.list) if chosen.list else [])]
    if not named and not chosen.finish:
        raise SourceError("takedown: name images, by id or file, or say --finish.")
    images = sorted({_image(workspace, name) for name in named})
    if images and not _confirmed(chosen, f"Erase {len(images):,} images for good, in all releases too?"):
        return 1
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = takedown.take_down(workspace, images, chosen.reason, progress) if images else None
        late = takedown.finish(workspace, progress) if chosen.finish else None
        left = list(takedown.left(workspace))
    lines = []
    for each in filter(None, (found, late)):
        held = sum(map(len, each.by_shard.values()))
        lines.append(
            f"{len(each.images):,} images taken down, {held:,} of them were here; {each.shards:,} stage outputs "
            "are computed again when they are needed, from the journal"
        )
        lines += [f"release {name}: {samples:,} samples withdrawn so far" for name, samples in each.releases.items()]
        lines += [f"not deleted, since it lies at its source and is not ours: {file}" for file in each.originals]
        lines += pushed_copies(each.pushed)
    lines += [f"STILL THERE: {line}" for line in left] or ["nothing of what was taken down is left in the store"]
    lines.append("Copies outside the store (fetched releases, checkpoints trained on them) are not reached.")
    value = {
        "taken_down": to_json(found, by_shard="homes") if found else None,
        "finished": to_json(late, by_shard="homes") if late else None,
        "left": left,
    }
    say(chosen, value, lines)
    return 1 if left else 0


def _lines_of(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _image(workspace: Workspace, name: str) -> str:
    """The id of an image that is named by its id, by the beginning of an id in the store, or by a local file.

    Raises SourceError where the name fits no image, or several.
    """
    if is_id(name):
        return name
    if (path := Path(name)).is_file():
        return _image_of(workspace, sha256_hex(path.read_bytes()))
    if begins_id(name, _DIGITS):
        matching = {
            image
            for shard in workspace.registry.shards()
            for image in workspace.registry.image_ids(shard)
            if image.startswith(name)
        }
        if len(matching) == 1:
            return matching.pop()
        raise SourceError(f"takedown: {len(matching)} images of the store begin with {name}. Give the whole id.")
    raise SourceError(f"takedown: {name!r} is no image id (8 to 64 hex digits), and no file of this machine.")


def _image_of(workspace: Workspace, content: str) -> str:
    """The id of an image by its bytes: of a page in the store, another than their sha256."""
    registry = workspace.registry
    found = (image for shard in registry.shards() for image in registry.images(shard) if image.content == content)
    page = next(found, None)
    return content if page is None else page.image


def _forget(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    choice: Mapping[str, Any] = {
        "model": chosen.model,
        "since": chosen.since,
        "until": chosen.until,
        "where": dict(chosen.where),
    }
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = forget.forget(workspace, **choice, progress=progress)
    told = [f"{units:,} answers of {stage}" for stage, units in sorted(found.units.items())] or [
        "no answer fits these choices"
    ]
    told.append(
        f"from {found.calls:,} replies; asking them again, as far as they are still needed, costs up to about "
        f"{found.tokens:,.0f} tokens, ${found.cost / NANO:.4f} (at list prices ${found.list_cost / NANO:.4f})"
    )
    if found.reviewed:
        told.append(
            f"people voted on {found.reviewed:,} pairs of these images: their votes stay, and count for a pair that is "
            "written again in the same words"
        )
    value = {**to_json(found, by_shard="homes"), "homes": len(found.by_shard), "forgotten": False}
    if chosen.dry_run or not found.units:
        say(chosen, value, told)
        return 0
    if not chosen.json:
        print("\n".join(told))
    if not _confirmed(chosen, "Forget them?"):
        return 1
    forget.carry_out(workspace, found)
    say(chosen, {**value, "forgotten": True}, ["forgotten: `taskgalaxy plan` shows what is asked again"])
    return 0


def _export(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        written = answers.export(workspace, chosen.file, progress)
    say(chosen, {"replies": written, "file": str(chosen.file)}, [f"{written:,} replies written to {chosen.file}"])
    return 0


def _import(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = answers.load(workspace, chosen.file, progress)
    stages = ", ".join(f"{number:,} of {stage}" for stage, number in sorted(found.by_stage.items())) or "none"
    lines = [
        f"{found.read:,} replies read; new answers: {stages}",
        f"{found.known:,} replies answer nothing new; {found.elsewhere:,} are about images that are not here",
    ]
    say(chosen, asdict(found), lines)
    return 0


def _read_again(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = answers.read_again(workspace, progress, dry_run=chosen.dry_run, altered=chosen.altered)
    done = "can be read" if chosen.dry_run else "read"
    lines = [
        f"{number:,} answers of {stage} {done} from kept replies" for stage, number in sorted(found.answers.items())
    ]
    lines = lines or ["today's parser finds no new answer in any kept reply"]
    if found.malformed:
        stages = ", ".join(f"{number:,} of {stage}" for stage, number in sorted(found.malformed.items()))
        lines.append(f"malformed answers before: {stages}")
    if found.altered:
        wrong = f"{found.altered:,} written pairs lost backslashes (as of LaTeX) to an older version"
        right = "are put right, and voted on anew" if found.corrected else "stay as they are: --altered puts them right"
        lines.append(f"{wrong}; they {'would be put right' if found.corrected and chosen.dry_run else right}")
    if found.unreadable:
        lines.append(
            f"{found.unreadable:,} written pairs can be read in more than one way and stay as they are; "
            "`taskgalaxy forget --where stage=write` lets all that was written be asked again"
        )
    if chosen.dry_run:
        lines.append("nothing was changed: leave --dry-run out to keep them")
    say(chosen, {**asdict(found), "dry_run": chosen.dry_run}, lines)
    return 0


def _gc(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        grace = chosen.grace_days * 86400
        found = gc.collect(workspace, grace_seconds=grace, delete=chosen.delete, progress=progress)
    done = "deleted" if chosen.delete else "would be deleted (--delete)"
    lines = [
        f"{found.objects:,} objects, {found.size / 1e6:,.1f} MB: {done}",
        f"{found.young:,} objects that nothing refers to are younger than {chosen.grace_days:g} days: left",
        *(f"  {key}" for key in found.first),
    ]
    say(chosen, {**asdict(found), "deleted": chosen.delete}, lines)
    return 0


def _compact(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        folded = gc.compact(workspace, progress)
    say(chosen, {"journals": folded}, [f"{folded:,} journals compacted, and the budget's ledger"])
    return 0


def _upgrade(chosen: argparse.Namespace) -> int:
    with show_progress(chosen.quiet or chosen.json) as progress:
        before, after = upgrade.upgrade(loaded(chosen), progress)
    lines = [f"layout {before}: nothing to do" if before == after else f"from layout {before} to {after}"]
    say(chosen, {"from": before, "to": after}, lines)
    return 0
