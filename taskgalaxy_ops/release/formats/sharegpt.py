"""ShareGPT rows with ``dataset_info.json``, as LLaMA-Factory reads them: ``dataset_dir`` is the format's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from taskgalaxy_ops.release.formats import Gone, ReleaseFormat
from taskgalaxy_ops.release.formats.layouts import Row, said_in, sharegpt
from taskgalaxy_ops.release.formats.lines import line_files, redacted_lines
from taskgalaxy_ops.release.rows import Sample, beside
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.sqlite_staging import SPLITS
from taskgalaxy_ops.storage.base import Content

FOLDER = "sharegpt"
INFO = "dataset_info.json"

# The entry of a file in LLaMA-Factory's list of datasets, but for the file and its columns.
ENTRY: dict[str, Any] = {
    "formatting": "sharegpt",
    "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
}
COLUMNS = {"messages": "conversations", "images": "images"}
NAMES = {split: "taskgalaxy" if split == "train" else f"taskgalaxy_{split}" for split in SPLITS}  # of the datasets


def _files(plan: Selection) -> Iterator[tuple[str, Content]]:
    yield from line_files(plan, FOLDER, _row)
    entries = {NAMES[split]: {"file_name": f"{split}.jsonl", **ENTRY, "columns": COLUMNS} for split in SPLITS}
    yield f"{FOLDER}/{INFO}", json.dumps(entries, indent=1).encode() + b"\n"


def _row(sample: Sample) -> Row:
    return sharegpt(sample.pair, said_in(sample), [beside(image) for image in sample.locations])


def _redacted(path: str, raw: bytes, gone: Gone) -> bytes:
    return raw if path.endswith(INFO) else redacted_lines(raw, gone)


SHAREGPT = ReleaseFormat(
    files=_files,
    redact=_redacted,
    count=lambda _: len(SPLITS) + 1,
    about="ShareGPT rows for LLaMA-Factory, whose `dataset_dir` this folder is, and its `dataset` then `taskgalaxy`",
)
