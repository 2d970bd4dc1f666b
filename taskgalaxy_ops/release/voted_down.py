"""The answers that judges voted down, or that people found wrong, beside the samples that have the same question.

They lie in a table of their own of the release's database, ``voted_down``, and reach the format ``preference`` alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import PairId
from taskgalaxy_ops.release.inputs import ShardRows
from taskgalaxy_ops.release.rows import Sample


class VotedDown(NamedTuple):
    """An answer to a sample's question that did not become a sample."""

    pair: PairId
    answer: str
    reasoning: str | None
    share: float  # of the votes that approve it, 0 to 1


def load_voted_down(rows: sqlite3.Connection, shard: ShardRows) -> None:
    """Insert an image shard's answers that were voted down; blind answers and conversations are left out."""
    if shard.voted_down is None:
        return
    verdicts = {verdict["pair"]: verdict for verdict in shard.verdicts.to_pylist()}
    samples = {*shard.samples["pair"].to_pylist()}
    for pair in shard.voted_down.to_pylist():
        wrong, verdict = pair["pair"] in shard.found_wrong, verdicts.get(pair["pair"])
        down = verdict is not None and not verdict["accepted"] and not verdict["blind"] and verdict["votes"]
        if pair["further_turns"] or not (wrong or down) or (pair["pair"] in samples and not wrong):
            continue
        share = 0.0 if wrong or verdict is None else verdict["approvals"] / verdict["votes"]
        asked = [pair[name] for name in ("pair", "image", "further_images", "task_type", "variant")]
        reasoning = None if pair["reasoning"] is None else neutral(pair["reasoning"])
        said = (neutral(pair["question"]), neutral(pair["answer"]), reasoning, share)
        rows.execute("INSERT INTO voted_down VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*asked, *said))


def index_voted_down(rows: sqlite3.Connection) -> None:
    """Make them quick to find. Call it once all are loaded."""
    rows.execute("CREATE INDEX voted_down_of ON voted_down (image, question)")


def beside(rows: sqlite3.Connection, sample: Sample) -> Iterator[VotedDown]:
    """The answers to a sample's question that were voted down, in order of id."""
    found = rows.execute(
        "SELECT pair, answer, reasoning, share FROM voted_down WHERE image = ? AND question = ? AND variant = ? AND "
        "task_type = ? AND further_images IS ? ORDER BY pair",
        (sample.image, sample.question, sample.variant, sample.task_type, sample.further_images),
    )
    return map(VotedDown._make, found)


def approval(rows: sqlite3.Connection, pair: PairId) -> float:
    """The share of votes that approve a sample, 0 to 1; 1: a person gave its answer."""
    approvals, counted = rows.execute("SELECT approvals, counted FROM pairs WHERE pair = ?", (pair,)).fetchone()
    return approvals / counted if counted else 1.0
