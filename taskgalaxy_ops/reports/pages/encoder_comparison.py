"""The page of two encoders: what each finds for the same images, with examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.operations.compare_encoders import EncoderComparison, Example
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.reports.html import Cell, Lines, Pictures, table_page
from taskgalaxy_ops.reports.text import encoders as encoders_text

Thumbnail = Callable[[ImageId], bytes]  # JPEG; raises NotFoundError


def comparison_page(found: EncoderComparison, thumbnail: Thumbnail) -> str:
    """Counts, and images with the task types that one encoder finds, the other one, and both (HTML)."""
    one, other = encoders_text.names(found)
    header = ("image", f"only {one}", f"both ({one}'s rank, {other}'s rank)", f"only {other}")
    examples = {"Images that differ most": found.differing, "Others that differ, drawn by hash": found.drawn}
    return table_page(
        "Two encoders",
        [*encoders_text.lead(found), "Models were asked nothing, and the store's matches are as they were."],
        [
            ("Overall", encoders_text.header(found), encoders_text.overall(found)),
            ("Matches by first-level node", encoders_text.header(found), encoders_text.by_branch(found)),
            *((title, header, [_example(each, thumbnail) for each in those]) for title, those in examples.items()),
        ],
    )


def _example(each: Example, thumbnail: Thumbnail) -> Sequence[Cell]:
    try:
        pictures = [thumbnail(each.image)]
    except NotFoundError:  # taken down meanwhile
        pictures = []
    both = Lines([f"{one}, {other}: {_shown(path)}" for path, one, other in each.both])
    # The caption has the id in full, by which a take-down finds the page.
    return Pictures(pictures, [*each.files, each.image]), _alone(each.first), both, _alone(each.second)


def _alone(matches: Sequence[Match]) -> Lines:
    return Lines([f"{each.rank}: {_shown(each.task_type)} ({each.similarity:.2f})" for each in matches])


def _shown(path: str) -> str:
    return path.replace("~", " › ")
