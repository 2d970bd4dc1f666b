"""The page of `benchmarks check`: what was found, and the release's and the benchmark's side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.operations.leaks import Example, LeakReport
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.reports.html import Cell, Lines, Pictures, table_page, thumbnail
from taskgalaxy_ops.reports.text import benchmarks as text

Thumbnail = Callable[[ImageId], bytes]  # JPEG; raises NotFoundError

_SHOWN = 3  # pictures of an item


def leaks_page(found: LeakReport, of_image: Thumbnail) -> str:
    """The page (HTML)."""
    by_benchmark: dict[str, list[Sequence[Cell]]] = {}
    for each in found.examples:
        by_benchmark.setdefault(each.benchmark, []).append(_row(each, of_image))
    header = ("found", "in the store", "in the benchmark")
    return table_page(
        "Benchmarks and the store's samples",
        text.lead(found),
        [
            ("Found", text.FOUND, text.found_rows(found)),
            ("Not compared", text.UNCHECKED, text.unchecked_rows(found)),
            *((f"Examples: {name}", header, rows) for name, rows in by_benchmark.items()),
        ],
        simulated=found.simulated,
    )


def _row(each: Example, of_image: Thumbnail) -> Sequence[Cell]:
    ours: list[bytes] = []
    with suppress(NotFoundError):  # taken down meanwhile
        ours.append(of_image(each.image))
    score = "" if each.score == 1 else f" ({each.score:.2f})"
    # The caption has the id in full, by which a take-down finds the page.
    return Lines([each.what, f"{each.kind}{score}"]), Pictures(ours, [each.question, each.image]), _theirs(each)


def _theirs(each: Example) -> Cell:
    if each.theirs is None:
        return Lines([each.item, "not there any more: of a benchmark only fingerprints are kept"])
    item = each.theirs
    pictures = []
    for raw in item.pictures[:_SHOWN]:
        with suppress(Exception):  # a file that no decoder reads
            pictures.append(thumbnail(raw))
    options = [f"options: {' · '.join(item.options)}"] if item.options else []
    return Pictures(pictures, list(filter(None, [item.question, *options, f"item {item.item}"])))
