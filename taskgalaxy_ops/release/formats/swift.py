"""ms-swift's JSONL, a file a split: image paths start from the release's folder (``ROOT_IMAGE_DIR``)."""

from __future__ import annotations

from taskgalaxy_ops.release.formats import ReleaseFormat
from taskgalaxy_ops.release.formats.layouts import Row, said_in, swift
from taskgalaxy_ops.release.formats.lines import line_files, redacted_lines
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.sqlite_staging import SPLITS


def _row(sample: Sample) -> Row:
    return swift(sample.pair, said_in(sample), sample.locations)


SWIFT = ReleaseFormat(
    files=lambda plan: line_files(plan, "swift", _row),
    redact=lambda _, raw, gone: redacted_lines(raw, gone),
    count=lambda _: len(SPLITS),
    about="rows for ms-swift, with the release's folder as `ROOT_IMAGE_DIR`",
)
