"""The contact sheet's data, the selection of items where there are too many, and thumbnails."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from PIL import Image, ImageDraw

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.records import ImageId, PairId, TaskTypePath, Turn, Vote

_AT_ONCE = 4096  # items in memory at once, beside those picked


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A sample, or a file, match or pair that a stage rejected."""

    image: ImageId | None  # None: a file that is no image
    task_type: TaskTypePath = ""  # empty: rejected before it was matched
    stage: str = ""  # the stage that rejected it; empty: a sample
    reason: str = ""  # a records.Reason
    detail: str = ""
    variant: str | None = None
    pair: PairId | None = None
    question: str = ""
    answer: str = ""
    reasoning: str | None = None
    further_turns: Sequence[Turn] = ()  # of a conversation
    further_images: Sequence[ImageId] = ()  # of a question about several, after ``image``
    votes: Sequence[Vote] = ()
    sources: Sequence[str] = ()
    licence: str | None = None
    attribution: str | None = None

    @property
    def images(self) -> Sequence[ImageId]:
        """All images that it is about, in their order."""
        return () if self.image is None else (self.image, *self.further_images)

    @property
    def outcome(self) -> str:
        """``sample`` or ``reject``."""
        return "reject" if self.stage else "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything that the page shows. thumbnails: returns JPEG bytes (see ``thumbnail``) or raises NotFoundError."""

    title: str
    simulated: bool
    stage_counts: Sequence[StageCounts]  # in the order in which the stages run
    items: Iterable[Item]  # iterated once; only a part is in memory at a time
    thumbnails: Callable[[ImageId], bytes]
    facts: Sequence[tuple[str, str]] = ()  # label, value
    forecast: Sequence[tuple[str, str]] = ()  # label, value: a pilot's forecast of the full bill
    notes: Sequence[str] = field(default=())


@dataclass(slots=True)
class Picked:
    """The first items in the order of ``mixed``, and how many there are in all, by task type."""

    items: list[Item] = field(default_factory=list)
    total: int = 0
    samples: Counter[TaskTypePath] = field(default_factory=Counter)
    rejects: Counter[TaskTypePath] = field(default_factory=Counter)


def pick(items: Iterable[Item], most: int) -> Picked:
    """The first ``most`` items in the order of ``mixed``.

    Reads the items part by part and keeps the first ``most`` of the part and those kept before. This gives the same as
    ordering all at once: adding items never moves an item forward in the order, so that one that is dropped here would
    not have been among the first of all.
    """
    picked, left = Picked(), iter(items)
    while part := list(islice(left, _AT_ONCE)):
        picked.total += len(part)
        picked.samples.update(item.task_type for item in part if item.outcome == "sample" and item.task_type)
        picked.rejects.update(item.task_type for item in part if item.outcome == "reject" and item.task_type)
        picked.items = mixed([*picked.items, *part])[:most]
    return picked


def mixed(items: Iterable[Item]) -> list[Item]:
    """The items in an order whose first n items, for every n, represent all of them evenly.

    Samples and rejects alternate; among the rejects the stages and reasons take turns, within each of these the task
    types; within a task type the items are ordered by hash. The order depends on the items alone.
    """
    return _take_turns(
        items, [lambda item: item.outcome, lambda item: f"{item.stage}~{item.reason}", lambda item: item.task_type]
    )


def _take_turns(items: Iterable[Item], by: Sequence[Callable[[Item], str]]) -> list[Item]:
    if not by:
        return sorted(items, key=_hashed)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(by[0](item), []).append(item)
    lanes = [_take_turns(groups[name], by[1:]) for name in sorted(groups, key=_drawn)]
    turns = [(turn, lane) for lane, queue in enumerate(lanes) for turn in range(len(queue))]
    return [lanes[lane][turn] for turn, lane in sorted(turns)]


def _hashed(item: Item) -> tuple[float, str]:
    texts = (item.image, item.variant, item.question, item.answer, item.detail, *chain(*item.further_turns))
    return _drawn("\x1f".join(map(str, texts)))


def _drawn(text: str) -> tuple[float, str]:
    # "replace", because a lone surrogate has no UTF-8 form that could be hashed.
    return draw("contact sheet", text.encode("utf-8", "replace").decode()), text


def thumbnail(raw: bytes, side: int = 320) -> bytes:
    """A JPEG of an image file: upright, RGB, its longer side at most ``side`` pixels, without metadata.

    Never fails: for a file that cannot be decoded it is a crossed-out grey square.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of decompression bombs; ingest has its own limit
            image = upright(raw)
    except Exception:  # noqa: BLE001 - decoders raise anything: see sources/checking.py
        image = Image.new("RGB", (side, side), "#d4d4d4")
        pen = ImageDraw.Draw(image)
        pen.line((0, 0, side, side), "#a0a0a0", 3)
        pen.line((0, side, side, 0), "#a0a0a0", 3)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()  # else Pillow would copy a comment of the file into the JPEG
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()
