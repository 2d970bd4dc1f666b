"""Which rows of base data can be trained on, and why others cannot: one rule for every layout."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from itertools import cycle
from pathlib import Path

from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.release.base_data import BaseRow, rows_in, unreadable
from taskgalaxy_ops.release.formats.layouts import IMAGE, Who

_ROLES: dict[str, Who | None] = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": None}
_AROUND = re.compile(rf"(?:\s*{IMAGE})*(.*?)(?:{IMAGE}\s*)*", re.DOTALL)
_LONGEST = 4096  # characters of a path


class Unusable(StrEnum):
    """Why a row is left out."""

    VIDEO = "it is about a video"
    NO_TURNS = "it has no turns"
    SYSTEM = "it has a system turn"
    ORDER = "its turns are not question and answer by turns"
    EMPTY = "a turn is empty"
    NO_TEXT = "its text or id is no valid Unicode"
    MARKS = "it has other image marks than images"
    AMONG = "its images stand among its text, or in a later turn"
    REMOTE = "its image is a URL"
    OUTSIDE = "its image leads out of the folder of images"
    MISSING = "its image file is missing or empty"
    NO_IMAGE = "its image cannot be opened"
    LOST = "its image is not in the store any more"
    REPEATED = "it repeats another row"


def checked_rows(
    name: str, layout: str, file: Path
) -> Iterator[tuple[int, BaseRow, tuple[tuple[Who, str], ...] | Unusable]]:
    """The rows of a file of base data with their numbers, and the turns of each, or why it cannot be used.

    Raises SourceError as ``rows_in``, and for a role that is not known.
    """
    for number, row in rows_in(name, layout, file):
        try:
            turns = turns_of(row)
        except ValueError as error:
            raise unreadable(name, layout, file, number, error) from error
        yield number, row, turns


def turns_of(row: BaseRow) -> tuple[tuple[Who, str], ...] | Unusable:
    """The turns of a row without image marks, and with special tokens neutralised; its images stand before the first.

    A row with an image and no mark shows it first, too: LLaVA-OneVision-Data has such. Raises ValueError for a role
    that is not known.
    """
    roles = [_role(role) for role, _ in row.turns]
    if row.video:
        return Unusable.VIDEO
    if not roles:
        return Unusable.NO_TURNS
    if row.system or None in roles:
        return Unusable.SYSTEM
    if len(roles) % 2 or any(role != expected for role, expected in zip(roles, cycle(("human", "gpt")), strict=False)):
        return Unusable.ORDER
    texts = [text for _, text in row.turns]
    if (problem := _unmarked(texts, len(row.images) or row.held)) is not None:
        return problem
    turns = tuple((role, neutral(text)) for role, text in zip(roles, texts, strict=True) if role)
    if not all(map(_encodable, (row.id, *texts))):
        return Unusable.NO_TEXT
    return turns if all(text.strip() for _, text in turns) else Unusable.EMPTY


def _role(role: str) -> Who | None:
    if role not in _ROLES:
        raise ValueError(f"a turn is by {role[:60]!r}; known are {', '.join(_ROLES)}")
    return _ROLES[role]


def _unmarked(texts: list[str], images: int) -> Unusable | None:
    """Take the marks of the images out of the first text; or say what is wrong with them."""
    marks = sum(text.count(IMAGE) for text in texts[::2])  # in an answer it is a text, which is neutralised
    if marks != images and (marks or images > 1):
        return Unusable.MARKS
    if texts[0].count(IMAGE) != marks:
        return Unusable.AMONG
    if marks == 1:  # anywhere in the first text: LLaVA's trainer moves it to the front, too
        before, _, after = texts[0].partition(IMAGE)
        texts[0] = f"{before.rstrip()} {after.lstrip()}".strip() if before.strip() else after.strip()
    elif marks:
        found = _AROUND.fullmatch(texts[0])
        if found is None or IMAGE in found[1]:
            return Unusable.AMONG
        texts[0] = found[1].strip()
    return None


def image_file(folder: Path, named: str, follow_links: bool = False) -> Path | Unusable:
    """The file of an image that a row names. follow_links: links may lead out of the folder.

    What a row names is never opened outside the folder.
    """
    if "://" in named:
        return Unusable.REMOTE
    if "\0" in named or len(named) > _LONGEST or not _encodable(named):
        return Unusable.MISSING
    # Sets name images by the million: os.path is several times as quick as pathlib.
    root = str(folder)
    path = os.path.join(root, named)  # noqa: PTH118
    if ".." in named.split("/") or not path.startswith(root.rstrip("/") + "/"):
        return Unusable.OUTSIDE
    try:
        found = os.lstat(path)
        is_link = stat.S_ISLNK(found.st_mode)
        if not follow_links and not _real(path if is_link else os.path.dirname(path), root):  # noqa: PTH120
            return Unusable.OUTSIDE
        if is_link:
            found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return Unusable.MISSING
    return Path(path) if stat.S_ISREG(found.st_mode) and found.st_size else Unusable.MISSING


def _encodable(text: str) -> bool:
    """Whether a text holds no halves of characters, which JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


@lru_cache(4096)
def _real(path: str, folder: str) -> bool:
    """Whether a path, its links followed, lies in a folder."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())
