"""A gold set: pairs of which people know whether they are right, and what it says of verdicts and of probabilities."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.records import PairId, is_id
from taskgalaxy_ops.release.agreement import Interval
from taskgalaxy_ops.text import shown

BINS = 10  # of equal width, over which calibration is measured
_KNOWN = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldFigures:
    """What a gold set says. ``right`` and ``accepted`` are of the pairs of it that have a verdict here."""

    pairs: int
    unknown: int  # of the file's pairs, those that have no verdict here
    right: int
    accepted: int
    precision: Interval | None  # of accepted pairs, those that are right; None: none is accepted
    recall: Interval | None  # of right pairs, those that are accepted; None: none is right
    calibration: float | None  # expected calibration error of the probabilities by the votes alone
    right_share: Interval | None  # of all samples, those that are right: prediction-powered


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFigures:
    """What errors that were planted say of the verdicts, as far as the teacher's own errors are as easy to see."""

    errors: int  # that judges voted on
    votes: int
    cost: float | None  # USD of these votes, by what a vote costs; None: nothing is known of prices
    caught: Interval  # of the errors, those that the vote rejects: the verdicts' specificity
    by_judge: Mapping[str, tuple[int, Interval]]  # the errors that a judge voted on, and of them those it rejects
    precision: (
        Interval | None
    )  # at least so many of the accepted pairs are right; None: no pair or no error is accepted
    probability: float | None  # that the votes alone give to an error of being right, on average


def least_precision(accepted: float, caught: Interval) -> Interval | None:
    """The least share of right ones among accepted pairs; None: nothing bounds it.

    accepted: the share of all pairs. caught: of wrong pairs, the share that is rejected. Of the pairs, at most
    (1 - accepted) / caught are wrong, since no more than the rejected ones are among those that are caught; and of the
    wrong ones 1 - caught are accepted.
    """
    if not accepted:
        return None

    def least(share: float) -> float:
        wrong = min(1.0, (1 - accepted) / share) if share else 1.0
        return max(0.0, 1 - wrong * (1 - share) / accepted)

    return Interval(*(round(least(each), 3) for each in (caught.value, caught.low, caught.high)))


def read_gold(path: Path) -> dict[PairId, bool]:
    """The verdicts of a file: JSON Lines of ``{"pair", "right"}``, or CSV with these columns if its name ends in .csv.

    Further fields are left alone. ``right`` is true or false, 1 or 0, in CSV also yes or no. Raises SettingsError,
    naming the line.
    """
    found: dict[PairId, bool] = {}
    try:
        for number, row in _rows(path):
            pair, right = row.get("pair"), _right(row.get("right"))
            if not isinstance(pair, str) or not is_id(pair) or len(pair) < 64 or right is None:
                raise SettingsError(
                    f"gold set {path}, line {number}: no pair and verdict. A line has `pair`, the id of 64 digits that "
                    "`taskgalaxy explain` and releases show, and `right`, true or false."
                )
            if found.setdefault(pair, right) != right:
                raise SettingsError(f"gold set {path}, line {number}: pair {pair} is both right and wrong. Keep one.")
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise SettingsError(f"gold set {path}: no {_kind(path)} ({shown(error)}). Write it anew.") from error
    return found


def _kind(path: Path) -> str:
    return "CSV" if path.suffix.lower() == ".csv" else "JSON Lines"


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if _kind(path) == "CSV":
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                row = json.loads(line)
                yield number, row if isinstance(row, dict) else {}


def _right(value: Any) -> bool | None:
    return value if isinstance(value, bool) else _KNOWN.get(str(value).strip().lower())


def calibration_error(probabilities: Sequence[float], right: Sequence[bool]) -> float | None:
    """The expected calibration error over ``BINS`` bins of equal width; None: there is nothing to measure.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, formula 3.
    """
    if not probabilities:
        return None
    p, y = np.array(probabilities), np.array(right, float)
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    apart = np.abs(np.bincount(bins, p, BINS) - np.bincount(bins, y, BINS))
    return round(float(apart.sum() / len(p)), 3)


def powered_share(predicted: Sequence[float], known: Sequence[float], right: Sequence[bool]) -> Interval | None:
    """The share of right ones, by predictions for all and gold for some; None with fewer than two of gold.

    predicted: a probability for each without gold; known: for each with gold, which are to be drawn evenly. The
    predictions need not be true: gold corrects them, and they count by as much as they are worth (Angelopoulos et al.,
    "PPI++", 2023, with the weight of example 6.1). With fewer than 30 of gold, or gold that never differs, the interval
    is Wilson's, of gold alone.
    """
    n, more = len(right), len(predicted)
    if n < 2:
        return None
    y, own = np.array(right, float), np.array(known)
    spread = float(own.var(ddof=1))
    if n < 30 or not more or not spread or len(set(right)) == 1:
        return Interval.of_share(sum(right), n)
    weight = float(np.cov(y, own)[0, 1]) / ((1 + n / more) * spread)
    others = np.array(predicted)
    value = weight * float(others.mean()) + float((y - weight * own).mean())
    error = math.sqrt(weight**2 * float(others.var()) / more + float((y - weight * own).var(ddof=1)) / n)
    return Interval.around(value, error, 0.0, 1.0)
