"""Finds what of a release is in a benchmark, leaves it out or marks it, and counts it for the card and ``leaks.json``.

An image that is one of a benchmark's takes all its samples along; a question that is one takes its sample. For each
benchmark an image or a sample has one finding, the surest, so that the numbers add up.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from taskgalaxy_ops.records import PairId, Reason, turns_in
from taskgalaxy_ops.release import groups
from taskgalaxy_ops.release.decontaminate import pictures
from taskgalaxy_ops.release.decontaminate.benchmark import Benchmark, BenchmarkInputs
from taskgalaxy_ops.release.decontaminate.questions import QuestionIndex, QuestionThresholds, comparable, question_print
from taskgalaxy_ops.settings import DecontaminateSettings

LEAKS = "leaks.json"

_AT_ONCE = 1 << 14  # questions in memory
_TOLD = "benchmark || ': ' || item || ' (' || kind || iif(score < 1, printf(' %.2f', score), '') || ')'"
_SCHEMA = "CREATE TABLE leaks (what TEXT, benchmark TEXT, item TEXT, kind TEXT, score REAL, id TEXT)"
_INSERT = "INSERT INTO leaks VALUES (?, ?, ?, ?, ?, ?)"


class Leak(NamedTuple):
    """A finding."""

    what: str  # Reason.BENCHMARK_IMAGE or BENCHMARK_QUESTION
    benchmark: str
    item: str
    kind: str
    score: float
    id: str  # of the image, or of the sample


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkCount:
    """What was found of one benchmark, and what could not be compared with it."""

    name: str
    items: int
    images: dict[str, int] = field(default_factory=dict)  # the release's images that are in it, by kind
    questions: dict[str, int] = field(default_factory=dict)  # the release's samples whose question is in it, by kind
    both: int = 0  # samples of which image and question are in it
    unchecked: dict[str, int] = field(default_factory=dict)  # of its items or of what they hold, by why


def leave_out_leaks(rows: sqlite3.Connection, inputs: BenchmarkInputs, settings: DecontaminateSettings) -> None:
    """Make the table ``leaks`` of all findings; of each leak, unless it is only marked, the samples become rejects."""
    rows.execute(_SCHEMA)
    for benchmark in inputs.benchmarks:
        rows.executemany(_INSERT, _questions(rows, inputs, benchmark, settings))
    rows.executemany(_INSERT, _images(rows, inputs, settings))
    rows.execute("CREATE INDEX leaks_by_id ON leaks (id, what)")
    if settings.rule == "mark":
        return
    for what, column in ((Reason.BENCHMARK_IMAGE, "image"), (Reason.BENCHMARK_QUESTION, "pair")):
        # Of several benchmarks that hold one, the surest finding is named, and of equal ones the first by name.
        told = (
            f"SELECT {_TOLD} FROM leaks WHERE what = ? AND id = pairs.{column} ORDER BY score DESC, benchmark LIMIT 1"
        )
        rows.execute(
            f"UPDATE pairs SET reason = ?, detail = ({told}) WHERE image IS NOT NULL AND reason IS NULL "
            f"AND {column} IN (SELECT id FROM leaks WHERE what = ?)",
            (what, what, what),
        )
    groups.leave_out_leaked(rows, _TOLD)
    rows.execute(
        "UPDATE images SET wanted = 0 WHERE image IN (SELECT id FROM leaks WHERE what = ?)", (Reason.BENCHMARK_IMAGE,)
    )


def _questions(
    rows: sqlite3.Connection, inputs: BenchmarkInputs, benchmark: Benchmark, settings: DecontaminateSettings
) -> Iterator[Leak]:
    index = QuestionIndex(benchmark.questions, benchmark.question_vectors)
    if not len(index):
        return
    limits = QuestionThresholds.of(settings)
    asked = _asked(rows)
    while part := list(islice(asked, _AT_ONCE)):
        texts = [question for _, question in part]
        found: dict[PairId, Leak] = {}
        for number, item, kind, score in index.search(texts, list(map(question_print, texts)), inputs.encode, limits):
            pair = part[number][0]
            if pair not in found or score > found[pair].score:  # of a conversation, the turn that is surest
                found[pair] = Leak(Reason.BENCHMARK_QUESTION, benchmark.name, item, kind, score, pair)
        yield from found.values()


def _asked(rows: sqlite3.Connection) -> Iterator[tuple[PairId, str]]:
    """Every question of the samples that nothing else leaves out, a conversation's turns one after the other."""
    query = "SELECT pair, question, further_turns FROM pairs WHERE image IS NOT NULL AND reason IS NULL ORDER BY pair"
    for pair, question, further in rows.execute(query).fetchall():
        yield pair, question
        yield from ((pair, later) for later, _ in turns_in(further))


def _images(rows: sqlite3.Connection, inputs: BenchmarkInputs, settings: DecontaminateSettings) -> Iterator[Leak]:
    indexes = {
        each.name: pictures.PictureIndex(each.pictures, each.picture_vectors, each.copy_vectors)
        for each in inputs.benchmarks
        if each.pictures
    }
    if not indexes:
        return
    limits = pictures.PictureThresholds.of(settings)
    query = f"SELECT image FROM pairs WHERE image IS NOT NULL AND reason IS NULL UNION {groups.CHOSEN} ORDER BY 1"
    for prints in inputs.prints([image for (image,) in rows.execute(query)]):
        for name, index in indexes.items():
            for number, item, kind, score in index.search(prints, limits):
                yield Leak(Reason.BENCHMARK_IMAGE, name, item, kind, score, prints.images[number])


def counts(rows: sqlite3.Connection, inputs: BenchmarkInputs) -> list[BenchmarkCount]:
    """What was found, a benchmark each, in order of name."""
    return [_counted(rows, inputs, benchmark) for benchmark in inputs.benchmarks]


def _counted(rows: sqlite3.Connection, inputs: BenchmarkInputs, benchmark: Benchmark) -> BenchmarkCount:
    by_kind: dict[str, dict[str, int]] = {Reason.BENCHMARK_IMAGE: {}, Reason.BENCHMARK_QUESTION: {}}
    query = "SELECT what, kind, count(*) FROM leaks WHERE benchmark = ? GROUP BY what, kind ORDER BY what, kind"
    for what, kind, number in rows.execute(query, (benchmark.name,)):
        by_kind[what][kind] = number
    (both,) = rows.execute(
        "SELECT count(*) FROM pairs JOIN leaks q ON (q.id, q.what) = (pair, ?) JOIN leaks i ON (i.id, i.what) = "
        "(image, ?) WHERE q.benchmark = ? AND i.benchmark = ?",
        (Reason.BENCHMARK_QUESTION, Reason.BENCHMARK_IMAGE, benchmark.name, benchmark.name),
    ).fetchone()
    return BenchmarkCount(
        name=benchmark.name,
        items=benchmark.items,
        images=by_kind[Reason.BENCHMARK_IMAGE],
        questions=by_kind[Reason.BENCHMARK_QUESTION],
        both=both,
        unchecked=_unchecked(inputs, benchmark),
    )


def _unchecked(inputs: BenchmarkInputs, benchmark: Benchmark) -> dict[str, int]:
    """What could not be compared, by why."""
    found = Counter(benchmark.unread)
    different = {row.ordered: bool(row.grams) for row in benchmark.questions}
    found["questions of fewer than eight words, compared only where their picture is"] = sum(
        not long for long in different.values()
    )
    compared = len(comparable(benchmark.questions))
    found["questions that more than ten items ask"] = sum(different.values()) - compared
    without = not benchmark.embedded or inputs.encode is None
    if without:
        found["questions whose meaning was not compared: embedded by another encoder"] = compared
    if without and not benchmark.copy_vectors:  # then nothing names candidates but the bits of hashes
        found["pictures whose embeddings were not compared: embedded by another encoder"] = len(benchmark.pictures)
    if not benchmark.described:
        found["pictures that SSCD did not compare, described by other weights or none: add the benchmark again"] = len(
            benchmark.pictures
        )
    bare = [each for each in benchmark.pictures if not each.brightness]
    found["pictures added by an earlier version, compared by hashes alone: add the benchmark again"] = len(bare)
    alone = bare if benchmark.copy_vectors or not without else benchmark.pictures
    found["pictures whose PDQ says little, compared by their files alone: few edges, stripes, symmetry"] = sum(
        each.quality < pictures.LEAST_QUALITY for each in alone
    )
    return {why: number for why, number in found.items() if number}


def leak_lines(rows: sqlite3.Connection) -> Iterator[bytes]:
    """Every finding as a line, for the fingerprint of a release's content."""
    query = f"SELECT {', '.join(Leak._fields)} FROM leaks ORDER BY benchmark, what, id"
    return (json.dumps(row, ensure_ascii=False).encode() for row in rows.execute(query))


def leaks_json(rows: sqlite3.Connection, inputs: BenchmarkInputs, settings: DecontaminateSettings) -> bytes:
    """The leak report as JSON. It names samples and no images, so that a take-down leaves it as it is."""
    names = ("benchmark", "item", "what", "kind", "score", "sample")
    columns = f"{', '.join(f'l.{name}' for name in names[:-1])}, p.pair FROM pairs p CROSS JOIN leaks l"
    found: Sequence[tuple[Any, ...]] = rows.execute(
        f"SELECT {columns} ON (l.id, l.what) = (p.pair, ?) UNION SELECT {columns} ON (l.id, l.what) = (p.image, ?) "
        f"UNION SELECT {columns.replace('pairs p', 'further p')} ON (l.id, l.what) = (p.image, ?) ORDER BY 1, 6, 3",
        (Reason.BENCHMARK_QUESTION, Reason.BENCHMARK_IMAGE, Reason.BENCHMARK_IMAGE),
    ).fetchall()
    report = {
        "rule": settings.rule,
        "thresholds": settings.model_dump(mode="json", exclude={"rule", "benchmarks", "sscd"}),
        "benchmarks": [
            {name: getattr(each, name) for name in BenchmarkCount.__slots__} for each in counts(rows, inputs)
        ],
        "leaks": [dict(zip(names, row, strict=True)) for row in found],
    }
    return (json.dumps(report, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
