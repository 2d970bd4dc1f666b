"""``release.repeats``: how often a task type may ask the same, by words or by meaning, of different images."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.records import PairId, Reason
from taskgalaxy_ops.settings import RepeatSettings
from taskgalaxy_ops.text import normal_question

_DECIMALS = 6  # of a cosine: what another machine rounds otherwise decides nothing

Encode = Callable[[Sequence[str]], Vectors]


def leave_out_repeated(rows: sqlite3.Connection, chosen: RepeatSettings, encode: Encode | None) -> None:
    """Reject the samples of a task type that ask once more what enough of its samples ask; each names their first.

    What counts is a conversation's first question. Samples are taken in an order drawn by hash. Questions with the same
    words come first; of those that stay, questions that mean the same. One task type's questions are in memory.
    """
    rows.create_function("normal_question", 1, normal_question, deterministic=True)
    if chosen.same is not None:
        _reject(rows, _same(rows, chosen.same))
    if chosen.alike is not None and encode is not None:
        _reject(rows, _alike(rows, chosen.alike, chosen.cosine, encode))


def _reject(rows: sqlite3.Connection, found: Iterator[tuple[PairId, PairId]]) -> None:
    rows.executemany(
        "UPDATE pairs SET reason = ?, detail = 'as ' || ? || ' asks' WHERE pair = ?",
        [(Reason.REPEATED_QUESTION, first, pair) for pair, first in found],
    )


def _same(rows: sqlite3.Connection, most: int) -> Iterator[tuple[PairId, PairId]]:
    """Samples over ``most`` with the same words, each with the first of them."""
    yield from rows.execute(
        "SELECT pair, first FROM (SELECT pair, first_value(pair) OVER same AS first, row_number() OVER same AS place "
        "FROM pairs WHERE image IS NOT NULL AND reason IS NULL WINDOW same AS (PARTITION BY task_type, "
        "normal_question(question) ORDER BY draw('repeats', pair), pair)) WHERE place > ?",
        (most,),
    )


def _alike(rows: sqlite3.Connection, most: int, cosine: float, encode: Encode) -> Iterator[tuple[PairId, PairId]]:
    """Samples over ``most`` that mean the same as a first one, each with that one.

    A sample belongs to the first earlier first one that is near enough, or is a first one itself: no chains.
    """
    found = rows.execute(
        "SELECT task_type, pair, normal_question(question) FROM pairs WHERE image IS NOT NULL AND reason IS NULL "
        "ORDER BY task_type, draw('repeats', pair), pair"
    )
    for _, group in groupby(found, key=itemgetter(0)):
        samples = list(group)
        if len(samples) <= most:
            continue
        texts = sorted({text for *_, text in samples})
        vectors = dict(zip(texts, encode(texts), strict=True))
        firsts: list[PairId] = []
        points = np.empty((len(samples), len(next(iter(vectors.values())))), np.float32)
        sizes: list[int] = []
        for _, pair, text in samples:
            near = np.round(points[: len(firsts)] @ vectors[text], _DECIMALS) >= cosine
            if near.any():
                at = int(near.argmax())
                sizes[at] += 1
                if sizes[at] > most:
                    yield pair, firsts[at]
            else:
                points[len(firsts)] = vectors[text]
                firsts.append(pair)
                sizes.append(1)
