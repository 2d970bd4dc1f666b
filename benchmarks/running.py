"""Shared by the benchmarks: the chosen figures, a folder for them, running a module in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import BUILD

Bench = TypeVar("Bench")
Result = dict[str, Any]


def scale() -> float:
    """The share of the images or calls to use, from the environment variable ``SCALE``; by default 1."""
    return float(os.environ.get("SCALE", "1"))


def measure(figures: Mapping[str, Callable[[Bench], None]], chosen: Sequence[str], bench: Bench) -> None:
    """Measure the chosen figures, by default all."""
    for figure in chosen or figures:
        figures[figure](bench)


@contextmanager
def folder(name: str, figures: Mapping[str, Any], chosen: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder below ``BENCH_FOLDER``. Raises SystemExit for an unknown figure."""
    if unknown := set(chosen) - set(figures):
        raise SystemExit(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(figures)}.")
    place = Path(os.environ.get("BENCH_FOLDER", BUILD))
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=place) as made:
        yield Path(made).absolute()


def process(module: str, *arguments: str) -> Result:
    """Run a module in a separate process, and return the JSON that it prints. Raises SystemExit if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed.")
    report: Result = json.loads(done.stdout)
    return report


def stats(url: str, method: str = "GET") -> Result:
    """The counts of the simulated models' server. method: "DELETE" sets them to zero."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/stats", method=method), timeout=10) as reply:
        counts: Result = json.load(reply)
    return counts
