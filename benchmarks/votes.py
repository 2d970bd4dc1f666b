"""What votes are worth: is what the report says of judges true? ``python -m benchmarks.votes``; ``make bench-votes``.

Votes of three judges are simulated whose error rates are known: rates, the share of right pairs, errors drawn
for all judges alike and pairs that are hard for all are swept. Judges are asked while the verdict is open, and on a
tenth of the pairs. ``SCALE=0.1`` takes a tenth of the seeds and rows; arguments choose figures: join, accuracy.

``votes.join`` compares making ballots and verdicts of 1,000,000 votes with DuckDB's group-by of the same rows.
``votes.accuracy_coverage`` is the share of seeds in which a judge's configured accuracy lies in its interval, of the
judge with the lowest share.
``votes.calibration`` is the expected calibration error of the pairs' probabilities of being right.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import running
from benchmarks.figures import Book, Figure
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.release.agreement import Ballot
from taskgalaxy_ops.release.gold import calibration_error
from taskgalaxy_ops.release.judge_model import JudgeModel
from taskgalaxy_ops.release.vote_table import ballot_table

VOTES, SEEDS, PAIRS = 1_000_000, 200, 3_000
JUDGES = ("a", "b", "c")
QUORUM, AUDITED = 2, 0.1
TOGETHER = (0.0, 0.15, 0.3, 0.5)  # shares of pairs whose errors are drawn for all judges alike
HARD = (0.0, 0.1, 0.2)  # shares of pairs on which all judges err more often
HARDER = 3.0  # times as often
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Simulated:
    """The ballots of pairs, (n,) right or not, and each judge's accuracy as it was configured."""

    ballots: list[Ballot]
    right: NDArray[np.bool_]
    accuracy: NDArray[np.float64]


def simulated(seed: int, pairs: int = PAIRS) -> Simulated:
    """Votes on pairs by judges whose rates are drawn by the seed."""
    random = np.random.default_rng(seed)
    n, together, hard = len(JUDGES), TOGETHER[seed % len(TOGETHER)], HARD[seed % len(HARD)]
    share = random.uniform(0.6, 0.92)
    on_wrong, on_right = random.uniform(0.02, 0.3, n), random.uniform(0.02, 0.2, n)
    right = random.random(pairs) < share
    factor = np.where(random.random(pairs) < hard, HARDER, (1 - hard * HARDER) / (1 - hard))
    alike = (random.random(pairs) < together)[:, None]
    drawn = np.where(alike, random.random((pairs, 1)), random.random((pairs, n)))
    err = drawn < np.where(right[:, None], on_right, on_wrong) * factor[:, None]
    votes = (right[:, None] ^ err).astype(int).tolist()
    audited = (random.random(pairs) < AUDITED).tolist()
    ballots = [_cast(vote, seen) for vote, seen in zip(votes, audited, strict=True)]
    return Simulated(ballots, right, share * (1 - on_right) + (1 - share) * (1 - on_wrong))


def _cast(votes: list[int], audited: bool) -> Ballot:
    """The votes that are asked for: all, or those until the verdict is reached."""
    cast: list[tuple[str, int | None]] = []
    approvals = 0
    for judge, vote in zip(JUDGES, votes, strict=True):
        left = len(JUDGES) - len(cast)
        if not audited and (approvals >= QUORUM or approvals + left < QUORUM):
            break
        cast.append((judge, vote))
        approvals += vote
    return tuple(cast)


def accuracy(book: Book, scale: float) -> None:
    """Fit the model to each seed's votes."""
    covered: dict[str, list[bool]] = {judge: [] for judge in JUDGES}
    widths: list[float] = []
    predicted: list[float] = []
    right: list[bool] = []
    by_together: dict[float, list[bool]] = {}
    seeds, began = max(4, round(SEEDS * scale)), time.monotonic()
    for seed in range(seeds):
        made = simulated(seed)
        counts = Counter(made.ballots)
        model = JudgeModel(JUDGES, counts)
        for found, true in zip(model.accuracies(), made.accuracy, strict=True):
            covered[found.judge].append(bool(found.accuracy.low <= true <= found.accuracy.high))
            widths.append(found.accuracy.high - found.accuracy.low)
            by_together.setdefault(TOGETHER[seed % len(TOGETHER)], []).append(covered[found.judge][-1])
        probability = dict(zip(counts, model.probabilities(list(counts)), strict=True))
        predicted += [probability[ballot] for ballot in made.ballots]
        right += made.right.tolist()
    detail: dict[str, Any] = {
        "seeds": seeds,
        "pairs": PAIRS,
        "width": statistics.mean(widths),
        "all_judges": statistics.mean(map(all, zip(*covered.values(), strict=True))),
        "seconds_a_fit": (time.monotonic() - began) / seeds,
        "by_together": {str(share): statistics.mean(own) for share, own in sorted(by_together.items())},
    }
    least = min(statistics.mean(own) for own in covered.values())
    book.add(Figure("votes.accuracy_coverage", least, 0.9, "higher", detail))
    error = calibration_error(predicted, right)
    assert error is not None
    detail = {"seeds": seeds, "pairs": len(right), "right": statistics.mean(right)}
    book.add(Figure("votes.calibration", error, 0.03, "lower", detail))


def join(book: Book, scale: float) -> None:
    """Make verdicts of votes, and have DuckDB count approvals by pair; in turn, the best of each."""
    votes = max(1_000, round(VOTES * scale))
    rows = [
        (sha256_hex(str(at).encode()), judge, vote)
        for at, ballot in enumerate(simulated(0, votes // 2).ballots)
        for judge, vote in ballot
    ][:votes]
    columns = [list(column) for column in zip(*sorted(rows), strict=True)]
    types = (pa.string(), pa.string(), pa.int64())
    table = pa.table(dict(zip(("pair", "judge", "vote"), map(pa.array, columns, types), strict=True)))
    ours: list[float] = []
    theirs: list[float] = []
    with duckdb.connect() as database:
        database.register("votes", table)
        query = f"select pair, sum(vote) >= {QUORUM} as accepted from votes group by pair"
        for _ in range(ROUNDS):
            began = time.monotonic()
            made = ballot_table(table, JUDGES)
            accepted = made.accepted(QUORUM)
            ours.append(time.monotonic() - began)
            began = time.monotonic()
            found = database.sql(query).to_arrow_table()
            theirs.append(time.monotonic() - began)
    expected = dict(zip(found["pair"].to_pylist(), found["accepted"].to_pylist(), strict=True))
    assert expected == dict(zip(made.pairs.to_pylist(), accepted.tolist(), strict=True)), "the verdicts differ"
    detail = {"votes": len(rows), "pairs": len(made.pairs), "seconds": min(ours), "duckdb_seconds": min(theirs)}
    book.add(Figure("votes.join", min(ours) / min(theirs), 3.0, "lower", detail))


FIGURES: Mapping[str, Callable[[Book, float], None]] = {figure.__name__: figure for figure in (join, accuracy)}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    if unknown := set(chosen) - set(FIGURES):
        raise SystemExit(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}.")
    book = Book("votes")
    for figure in chosen or FIGURES:
        FIGURES[figure](book, running.scale())


if __name__ == "__main__":
    main(*sys.argv[1:])
