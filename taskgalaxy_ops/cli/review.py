"""`review`: people's votes on pairs, drawn, exported, imported, counted, revoked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, positive, say, workspace_of
from taskgalaxy_ops.errors import ReviewError
from taskgalaxy_ops.operations import review, review_files
from taskgalaxy_ops.operations.review import Drawn
from taskgalaxy_ops.release.images import in_a_row
from taskgalaxy_ops.release.renditions import Renditions
from taskgalaxy_ops.reports.text import review as review_text
from taskgalaxy_ops.workspace import Workspace

_PAIRS = 100


def add(add_command: AddCommand, commands: Any) -> None:
    """Add `review`."""
    group = commands.add_parser("review", help="people's votes on pairs: draw, export, import, list, revoke")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    sub = add_command("draw", _draw, "show pairs for people to look at; the same ones each time", actions)
    _add_draw(sub)
    sub = add_command("export", _export, "write such pairs, with their pictures, for people to fill in", actions)
    _add_draw(sub)
    sub.add_argument("--to", type=Path, required=True, metavar="FILE", help="pictures lie in a folder beside it")
    sub.add_argument("--format", choices=review_files.FORMATS, default="csv", help="default: %(default)s")
    sub.add_argument(
        "--pictures-at",
        metavar="URL",
        help="where that folder is served, such as /data/local-files/?d=FOLDER of Label Studio; default: its path",
    )
    sub = add_command("import", _import, "take over what people filled in: all of it, or nothing", actions)
    sub.add_argument("file", type=Path, help="CSV, or the JSON that Label Studio exports")
    sub.add_argument("--reviewer", metavar="PSEUDONYM", help="of rows that name none")
    sub.add_argument("--skip-unknown", action="store_true", help="leave out rows about pairs that are no more")
    add_command("list", _list, "count people's votes, and say how far they agree", actions)
    sub = add_command("revoke", _revoke, "take votes of a person back; the log keeps that they were given", actions)
    sub.add_argument("--reviewer", required=True, metavar="PSEUDONYM")
    sub.add_argument("pairs", nargs="*", metavar="PAIR", help="ids, or their beginnings")
    sub.add_argument("--all", action="store_true", help="all votes of this person")


def _add_draw(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-n", "--number", type=positive, default=_PAIRS, metavar="N", help="default: %(default)s")
    sub.add_argument(
        "--by",
        type=_strata,
        default=("task_type", "form", "disagreement"),
        metavar="A,B",
        help=f"of {', '.join(review.BY)}: each stratum gives one before any gives a second; '': none, at random; "
        "default: task_type,form,disagreement",
    )


def _strata(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if unknown := set(names) - set(review.BY):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)[0]!r} is none of {', '.join(review.BY)}")
    return names


def _draw(chosen: argparse.Namespace) -> int:
    drawn = review.draw_pairs(workspace_of(chosen), chosen.number, chosen.by)
    say(chosen, {"pairs": [asdict(each) for each in drawn]}, review_text.drawn(drawn))
    return 0


def _export(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    drawn = review.draw_pairs(workspace, chosen.number, chosen.by)
    out: Path = chosen.to
    folder = out.with_name(f"{out.stem}-pictures")
    _write_pictures(workspace, drawn, folder)
    at = (chosen.pictures_at or folder.name).rstrip("/")
    pictures = [f"{at}/{_named(each)}.jpg" for each in drawn]
    if chosen.format == "csv":
        out.write_text(review_files.to_csv(drawn, pictures), "utf-8-sig", newline="")  # spreadsheets know UTF-8 by it
        files = [out]
    else:
        out.write_text(review_files.to_label_studio(drawn, pictures), "utf-8")
        config = out.with_suffix(".xml")
        config.write_text(review_files.LABELS, "utf-8")
        files = [out, config]
    paths = [str(file.resolve()) for file in files]
    lines = [f"{len(drawn):,} pairs: {', '.join(paths)}", f"  pictures: {folder.resolve()}"]
    say(chosen, {"pairs": len(drawn), "files": paths, "pictures": str(folder.resolve())}, lines)
    return 0


def _write_pictures(workspace: Workspace, drawn: Sequence[Drawn], folder: Path) -> None:
    """The pictures that the teacher was sent, named by their images; those of a group side by side, by the pair."""
    folder.mkdir(parents=True, exist_ok=True)
    renditions = Renditions(workspace)
    for name, images in sorted({_named(each): each.pair.images for each in drawn}.items()):
        for image in images:
            renditions.refer(image)  # an image that is not copied may be gone, and its rendition there
        pictures = [workspace.store.get(renditions.key(image)) for image in images]
        (folder / f"{name}.jpg").write_bytes(in_a_row(pictures))


def _named(each: Drawn) -> str:
    return each.pair.pair if each.pair.further_images else each.pair.image


def _import(chosen: argparse.Namespace) -> int:
    rows = review_files.read_reviews(chosen.file, chosen.reviewer)
    found = review.record(workspace_of(chosen), rows, skip_unknown=chosen.skip_unknown)
    say(chosen, asdict(found), review_text.imported(found))
    return 0


def _list(chosen: argparse.Namespace) -> int:
    found = review.overview(workspace_of(chosen))
    say(chosen, asdict(found), review_text.overview(found))
    return 0


def _revoke(chosen: argparse.Namespace) -> int:
    if bool(chosen.pairs) == chosen.all:
        raise ReviewError("review revoke: name pairs, or give --all.")
    revoked = review.revoke(workspace_of(chosen), chosen.reviewer, None if chosen.all else chosen.pairs)
    say(chosen, {"revoked": revoked}, [f"{len(revoked):,} votes of {chosen.reviewer} revoked"])
    return 0
