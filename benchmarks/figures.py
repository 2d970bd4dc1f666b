"""A figure: a printed line for people, and a JSON object a line in ``build/bench/<name>.jsonl`` for scripts."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

BUILD = Path("build/bench")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, its goal, and in ``detail`` the numbers that it was computed from."""

    figure: str
    value: float
    goal: float | None  # None: for information
    better: Literal["lower", "higher"]
    detail: dict[str, Any]

    @property
    def met(self) -> bool:
        """Whether it reaches its goal."""
        if self.goal is None:
            return True
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


class Book:
    """Prints the figures of one run, and appends them to a file."""

    def __init__(self, name: str, folder: Path = BUILD) -> None:
        self.file = folder / f"{name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, figure: Figure) -> None:
        """Print a figure, and append it to the file."""
        goal = "-" if figure.goal is None else f"{figure.goal:g}{'' if figure.met else '  (missed)'}"
        parts = [f"{name} {_short(value)}" for name, value in figure.detail.items() if not isinstance(value, dict)]
        print(f"{figure.figure:34} {figure.value:8.4g}   goal {goal}   {', '.join(parts)}", flush=True)
        line = {
            "figure": figure.figure,
            "value": figure.value,
            "goal": figure.goal,
            "better": figure.better,
            "machine": machine(),
            "detail": figure.detail,
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def machine() -> dict[str, Any]:
    """The machine that the figures are measured on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
