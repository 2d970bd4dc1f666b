"""The display of a long run's progress: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.usage import Usage

_LINE_SECONDS = 5.0  # without a terminal: at most one line a stage in this time, and one at its end


@contextmanager
def show_progress(quiet: bool = False) -> Iterator[Progress]:
    """Yield the progress display that fits standard error: bars on a terminal, else lines; none if ``quiet``."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        live = _Live()
        with live.bars:
            yield live
    else:
        yield Lines()


class _Live:
    def __init__(self) -> None:
        self.bars = Bars(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}"),
            console=Console(stderr=True),
            expand=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._usage: dict[str, str] = {}

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._counts[name] = Counter()
        self._tasks[name] = self.bars.add_task(name, total=total, unit=unit, counts="")

    def advance(self, name: str, done: int = 1, **counts: int) -> None:
        self._counts[name].update(counts)
        text = ", ".join(filter(None, [_counted(self._counts[name]), self._usage.get(name, "")]))
        self.bars.update(self._tasks[name], advance=done, counts=text)

    def usage(self, name: str, usage: Usage) -> None:
        self._usage[name] = usage_line(usage)
        self.advance(name, 0)

    def note(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)


class Lines:
    """Progress as plain lines, at most one a stage in five seconds. say: writes a line, by default to stderr."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self._total: dict[str, tuple[int | None, str]] = {}
        self._done: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {}
        self._printed: dict[str, float] = {}
        self._usage: dict[str, str] = {}
        self._started: dict[str, float] = {}

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._total[name] = (total, unit)
        self._counts[name] = Counter()
        self._done[name] = 0
        self._started[name] = self._printed[name] = time.monotonic()

    def advance(self, name: str, done: int = 1, **counts: int) -> None:
        self._done[name] += done
        self._counts[name].update(counts)
        total, _ = self._total[name]
        self._print(name, final=bool(done) and total is not None and self._done[name] >= total)

    def usage(self, name: str, usage: Usage) -> None:
        self._usage[name] = usage_line(usage)
        self._print(name, final=False)

    def _print(self, name: str, *, final: bool) -> None:
        now = time.monotonic()
        if not final and now - self._printed[name] < _LINE_SECONDS:
            return
        self._printed[name] = now
        total, unit = self._total[name]
        parts = [
            f"{name}: {self._done[name]} {unit}" if total is None else f"{name}: {self._done[name]} of {total} {unit}",
            _counted(self._counts[name]),
            self._usage.get(name, ""),
        ]
        elapsed = now - self._started[name]
        if not final and total is not None and 0 < self._done[name] < total:
            parts.append(f"about {elapsed / self._done[name] * (total - self._done[name]):.0f} s left")
        self.note(", ".join(part for part in parts if part))

    def note(self, text: str) -> None:
        self._say(text)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)


def usage_line(usage: Usage) -> str:
    """Calls, tokens and money so far, in one line."""
    money = f"${usage.cost / NANO:.4f}"
    if usage.list_cost != usage.cost:
        money += f" (${usage.list_cost / NANO:.4f} at list prices)"
    return f"{usage.calls:,} calls, {usage.prompt_tokens + usage.completion_tokens:,} tokens, {money}"
