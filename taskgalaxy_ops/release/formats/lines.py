"""Files with a row of JSON a line, one a split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import BinaryIO

from taskgalaxy_ops.release.formats import Gone
from taskgalaxy_ops.release.formats.layouts import Row, lines
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.spooled import spooled
from taskgalaxy_ops.release.sqlite_staging import SPLITS


def line_files(plan: Selection, folder: str, row: Callable[[Sample], Row]) -> Iterator[tuple[str, BinaryIO]]:
    """``<folder>/<split>.jsonl``, rows in order of id, each with its task type; simulated ones say so."""
    marks = {"simulated": True} if plan.inputs.simulated else {}
    for split in SPLITS:
        with spooled() as file:
            rows = ({**row(each), "task_type": each.task_type, **marks} for each in plan.split(split))
            for part in lines(rows):
                file.write(part)
            yield f"{folder}/{split}.jsonl", file


def redacted_lines(raw: bytes, gone: Gone) -> bytes:
    """Such a file without the lines of what is gone; the others stay byte for byte."""
    kept = [each for each in raw.splitlines(keepends=True) if not _is_gone(each, gone)]
    return b"".join(kept)


def _is_gone(raw: bytes, gone: Gone) -> bool:
    row = json.loads(raw)
    return gone.holds(row["id"], *row["images"])
