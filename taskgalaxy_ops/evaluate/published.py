"""Figures that others published, each with its source: published.yaml as scores that are marked as not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate.benchmarks import find
from taskgalaxy_ops.evaluate.scores import Score

FILE = Path(__file__).with_name("published.yaml")


def published(file: Path = FILE) -> list[Score]:
    """All published figures, in the table's scale.

    Raises EvaluationError where a row names no source, or a figure is out of bounds.
    """
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    scores = []
    for row in content["rows"]:
        who = f"{file.name}: {row['model']}, {row['method']}"
        source = content["sources"].get(row.get("source"))
        if source is None:
            raise EvaluationError(f"{who}: no source. Name one of {', '.join(content['sources'])}.")
        for benchmark in find(row["figures"]):
            value = row["figures"][benchmark.name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= benchmark.maximum:
                raise EvaluationError(
                    f"{who}: {benchmark.name} is {value!r}. Give a number in 0..{benchmark.maximum:g}, or leave it out."
                )
            scores.append(
                Score(
                    model=row["model"],
                    method=row["method"],
                    benchmark=benchmark.name,
                    family="",
                    metric=benchmark.metric,
                    value=float(value),
                    measured=False,
                    source=f"{source['title']}, {source['url']}",
                )
            )
    return scores
