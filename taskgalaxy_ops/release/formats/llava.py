"""LLaVA's JSON: one array of conversations a split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from taskgalaxy_ops.release.formats import Gone, ReleaseFormat
from taskgalaxy_ops.release.formats.layouts import Row, json_array, llava, llava_images, said_in
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.spooled import spooled
from taskgalaxy_ops.release.sqlite_staging import SPLITS


def llava_files(plan: Selection) -> Iterator[tuple[str, BinaryIO]]:
    """One JSON array a split, a sample a line: id, image, task type and conversation (paper, section 3.5).

    Of a sample about several images, ``image`` is a list, and the first turn begins with as many ``<image>``.
    """
    for split in SPLITS:
        with spooled() as file:
            for part in json_array(_row(plan, sample) for sample in plan.split(split)):
                file.write(part)
            yield f"llava/{split}.json", file


def _row(plan: Selection, sample: Sample) -> Row:
    row = llava(sample.pair, said_in(sample), sample.locations, task_type=sample.task_type)
    if sample.context is not None:
        row["context"] = json.loads(sample.context)
    return {**row, "simulated": True} if plan.inputs.simulated else row


def _redacted(_: str, raw: bytes, gone: Gone) -> bytes:
    """LLaVA's JSON, which has a row a line: drop the lines of withdrawn rows, and leave the others byte for byte."""
    lines = [line.removesuffix(",") for line in raw.decode().split("\n")[1:-2]]
    rows = [json.loads(line) for line in lines]
    kept = [line for line, row in zip(lines, rows, strict=True) if not gone.holds(row["id"], *llava_images(row))]
    return raw if len(kept) == len(lines) else ("[\n" + ",\n".join(kept) + "\n]\n" if kept else "[]\n").encode()


LLAVA = ReleaseFormat(files=llava_files, redact=_redacted, count=lambda _: len(SPLITS))
