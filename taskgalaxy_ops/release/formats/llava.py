"""LLaVA's JSON: one array of conversations a split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from taskgalaxy_ops.release.select import Sample, Selection
from taskgalaxy_ops.release.spooled import spooled
from taskgalaxy_ops.release.sqlite_staging import SPLITS


def llava_files(plan: Selection) -> Iterator[tuple[str, BinaryIO]]:
    """One JSON array a split, a sample a line: id, image, task type and conversation (paper, section 3.5)."""
    for split in SPLITS:
        with spooled() as file:
            before = b"[\n"
            for sample in plan.split(split):
                file.write(before + json.dumps(_llava(plan, sample), ensure_ascii=False).encode())
                before = b",\n"
            file.write(b"\n]\n" if file.tell() else b"[]\n")
            yield f"llava/{split}.json", file


def _llava(plan: Selection, sample: Sample) -> dict[str, Any]:
    answer = f"{sample.reasoning}\n\n{sample.answer}" if sample.reasoning else sample.answer
    row: dict[str, Any] = {
        "id": sample.pair,
        "image": sample.location,
        "task_type": sample.task_type,
        "conversations": [
            {"from": "human", "value": f"<image>\n{sample.question}"},
            {"from": "gpt", "value": answer},
        ],
    }
    return {**row, "simulated": True} if plan.inputs.simulated else row
