"""Compare a model before and after, beside controls that see nothing: scores with intervals, and a verdict on the gain.

Intervals are 95 % percentile bootstraps that resample images, because the questions of one image are not independent.
The verdict says "a gain in seeing" only if the gain vanishes when the images are swapped: the whole interval of
``(after - after swapped) - (before - before swapped)`` must lie above zero. And the model must beat what sees nothing:
the whole intervals of ``after - after without images`` and ``after - majority answer`` must lie above zero, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskgalaxy_ops.evaluate.questions import Asked, swapped
from taskgalaxy_ops.evaluate.scores import Score

BEFORE, AFTER = "Baseline", "TaskGalaxy"
BEFORE_SWAPPED, AFTER_SWAPPED = "Baseline, images swapped", "TaskGalaxy, images swapped"
BLIND = "TaskGalaxy without images"
MAJORITY = "Majority answer"
METHODS = (BEFORE, AFTER, AFTER_SWAPPED, BEFORE_SWAPPED, BLIND, MAJORITY)
_FEWEST = 20  # images: below, an interval of resampled images says too little for a verdict
_RESAMPLES = 2000
_SEED = 2025

Rank = Callable[[Sequence[Asked], Sequence[str | None]], list[int]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One benchmark, or one family of it."""

    benchmark: str
    family: str  # "": all
    questions: int
    images: int
    scores: Mapping[str, Interval]  # by method
    gain: Interval  # after less before
    seeing: Interval  # what of the gain is lost when the images are swapped
    verdict: str


def answers(asked: Sequence[Asked], rank: Rank, *, swap: bool = False, blind: bool = False) -> np.ndarray[Any, Any]:
    """Which questions a model answers rightly: (n,), 1.0 where it does, else 0.0.

    rank: gets the questions and the path of an image for each (None: no image), and returns the index of the candidate
    that the model finds likeliest. swap: show each question another's image (`swapped`). blind: show no image.
    """
    images: list[str | None] = (
        [None] * len(asked) if blind else list(swapped(asked) if swap else [a.image for a in asked])
    )
    chosen = rank(asked, images)
    return np.array([each.candidates[pick] == each.answer for each, pick in zip(asked, chosen, strict=True)], float)


def compare(asked: Sequence[Asked], right: Mapping[str, np.ndarray[Any, Any]]) -> list[Comparison]:
    """Comparisons of all questions and of each family, benchmark by benchmark.

    right: for each method of METHODS but the majority, (n,): 1.0 where it answers that question rightly, else 0.0.
    """
    guessed = np.array([each.answer == each.guess for each in asked], float)
    columns = {**right, MAJORITY: guessed}
    comparisons = []
    for benchmark in sorted({each.benchmark for each in asked}):
        families = sorted({each.family for each in asked if each.benchmark == benchmark})
        for family in ["", *families]:
            chosen = [n for n, a in enumerate(asked) if a.benchmark == benchmark and family in {"", a.family}]
            images = [asked[n].image for n in chosen]
            comparisons.append(
                _comparison(benchmark, family, images, {name: column[chosen] for name, column in columns.items()})
            )
    return comparisons


def _comparison(
    benchmark: str, family: str, images: Sequence[str], columns: Mapping[str, np.ndarray[Any, Any]]
) -> Comparison:
    def over_images(values: np.ndarray[Any, Any]) -> Interval:
        return interval(values, images)

    before, after = columns[BEFORE], columns[AFTER]
    gain = over_images(after - before)
    seeing = over_images((after - columns[AFTER_SWAPPED]) - (before - columns[BEFORE_SWAPPED]))
    scores = {name: over_images(columns[name]) for name in METHODS if name in columns}
    shown = len(set(images))
    conclusion = f"too few images for a verdict ({shown})"
    if shown >= _FEWEST:
        blind = {name: over_images(after - columns[name]) for name in (BLIND, MAJORITY) if name in columns}
        conclusion = verdict(gain, seeing, over_images(columns[AFTER_SWAPPED] - columns[BEFORE_SWAPPED]), blind)
    return Comparison(
        benchmark=benchmark,
        family=family,
        questions=len(images),
        images=shown,
        scores=scores,
        gain=gain,
        seeing=seeing,
        verdict=conclusion,
    )


_SAID = {BLIND: "the model without images", MAJORITY: "the majority answer"}


def verdict(gain: Interval, seeing: Interval, swapped_gain: Interval, over_blind: Mapping[str, Interval]) -> str:
    """What a gain allows to be claimed.

    gain: after less before. seeing: the part of it that is lost when the images are swapped. swapped_gain: after less
    before, both with swapped images. over_blind: after less each of BLIND and MAJORITY that was scored.
    """
    if gain.high < 0:
        return "a loss"
    if gain.low <= 0:
        return "no gain is shown"
    if swapped_gain.low > 0 and seeing.low <= 0:
        return "a gain that stays when the images are swapped: no gain in seeing"
    unbeaten = [_SAID[name] for name, more in over_blind.items() if more.low <= 0]
    if unbeaten:
        return f"a gain, but not shown to be better than {' or '.join(unbeaten)}: none in seeing"
    return "a gain in seeing" if seeing.low > 0 else "a gain, not shown to be one in seeing"


def interval(values: np.ndarray[Any, Any], clusters: Sequence[str]) -> Interval:
    """Mean of ``values`` (n,) and its bootstrap interval over clusters (Efron and Tibshirani, 1993)."""
    from scipy.stats import bootstrap

    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(index, values), np.bincount(index)
    mean = float(values.mean())
    if len(names) < 2 or np.ptp(sums / sizes) == 0:
        return Interval(mean, mean, mean)
    bounds = bootstrap(
        (sums, sizes),
        lambda total, number, axis: total.sum(axis) / number.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high))


def as_scores(comparisons: Sequence[Comparison], model: str) -> list[Score]:
    """The rows of Parquet and tables."""
    return [
        Score(
            model=model,
            method=method,
            benchmark=each.benchmark,
            family=each.family,
            metric="accuracy",
            value=score.value,
            low=score.low,
            high=score.high,
            questions=each.questions,
        )
        for each in comparisons
        for method, score in each.scores.items()
    ]
