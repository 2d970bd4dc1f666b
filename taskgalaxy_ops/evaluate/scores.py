"""The record of a score: one row for each model, method, benchmark and family, as Parquet and tables hold it."""

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
    source: str | None = None  # where a published number is printed; of a measured one: what limits it
