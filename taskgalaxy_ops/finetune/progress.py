"""The progress of a job (step, loss, learning rate, time left), read from the files and logs that trainers write."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgalaxy_ops.finetune.jobs import LOG, OUTPUT

PROGRESS = "progress.jsonl"  # written by train.py; LLaMA-Factory and ms-swift write the other two files
_FILES = (PROGRESS, f"{OUTPUT}/trainer_log.jsonl", f"{OUTPUT}/logging.jsonl")
# What transformers' Trainer prints: {'loss': 1.2, 'learning_rate': 2e-05, 'epoch': 0.5}; its bar: 12/100 [00:10<01:30
_PRINTED = re.compile(r"\{'loss': [^{}]*\}")
_BAR = re.compile(r"(\d+)/(\d+) \[([\d:]+)<([\d:?]+)")


@dataclass(frozen=True, slots=True)
class Point:
    """One logged step."""

    step: int
    steps: int | None  # in the whole job
    loss: float
    learning_rate: float | None
    seconds_left: float | None


def points(folder: Path) -> list[Point]:
    """Every step that the job has logged, in order."""
    for name in _FILES:
        file = folder / name
        if file.is_file() and (logged := list(_lines(file))):
            return logged
    return list(_printed(folder / LOG))


def _lines(file: Path) -> Iterator[Point]:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line, half written
        if not isinstance(row, dict) or not isinstance(row.get("loss"), int | float):
            continue
        step, steps = (
            _number(row.get("step") or row.get("current_steps")),
            _number(row.get("steps") or row.get("total_steps")),
        )
        if step is None and isinstance(both := row.get("global_step/max_steps"), str) and "/" in both:  # ms-swift
            step, steps = (_number(part) for part in both.split("/", 1))
        seconds_left = row.get("seconds_left")
        if seconds_left is None and isinstance(row.get("remaining_time"), str):
            seconds_left = _seconds(row["remaining_time"])
        rate = row.get("learning_rate", row.get("lr"))
        yield Point(step or 0, steps, float(row["loss"]), _float(rate), _float(seconds_left))


def _printed(file: Path) -> Iterator[Point]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    step, steps, seconds_left = 0, None, None
    for match in re.finditer(f"{_PRINTED.pattern}|{_BAR.pattern}", text):
        if match[1]:
            step, steps, seconds_left = int(match[1]), int(match[2]), _seconds(match[4])
            continue
        try:
            row: dict[str, Any] = ast.literal_eval(match[0])
            yield Point(step, steps, float(row["loss"]), _float(row.get("learning_rate")), seconds_left)
        except (ValueError, SyntaxError, KeyError, TypeError):
            continue


def _number(value: object) -> int | None:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return None


def _float(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _seconds(clock: str) -> float | None:
    parts = clock.rpartition(", ")[2].split(":")
    if not all(part.isdecimal() for part in parts):
        return None
    total = 0
    for part in parts:
        total = total * 60 + int(part)
    return float(total)


def line(point: Point) -> str:
    """One line for a log."""
    parts = [f"step {point.step:,}" + (f" of {point.steps:,}" if point.steps else ""), f"loss {point.loss:.3f}"]
    if point.learning_rate is not None:
        parts.append(f"learning rate {point.learning_rate:.2e}")
    if point.seconds_left is not None:
        parts.append(f"about {point.seconds_left:.0f} s left")
    return ", ".join(parts)
