"""Scores: one row a model, method and benchmark, or family of task types in it. What Parquet and tables hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of one model on one benchmark."""

    model: str  # "tiny", "LLaVA-v1.5-7B"
    method: str  # what it was trained on: "Baseline", "TaskGalaxy", …
    benchmark: str  # a name of benchmarks.BENCHMARKS, or ours: "held-out", "easy-vqa"
    family: str  # task types under one first-level node, or a kind of question; "": all
    metric: str  # "accuracy", in 0..1; or the benchmark's own
    value: float
    low: float | None = None  # 95 % bootstrap interval
    high: float | None = None
    questions: int | None = None
    measured: bool = True  # False: published by somebody else
    source: str | None = None  # where a published one stands
