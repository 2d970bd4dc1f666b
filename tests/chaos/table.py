"""What the cases came to, as the page that states it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BEGIN, _END = "<!-- made by make chaos: begin -->", "<!-- end -->"
_STAGES = ("ingest", "generate", "filter", "write", "vote", "release")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case."""

    group: str
    fault: str
    stage: str  # in which it struck
    lost: int  # answers and samples
    paid_twice: int  # units
    seconds: float  # from the worker's start to its end, or to the next one's release where it was killed


class Table:
    """Rows by fault, in the order in which the faults were first met, and by stage."""

    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)

    def rows(self) -> Iterator[str]:
        """Markdown."""
        yield "| | fault | stage | runs | lost | paid twice | longest wait |"
        yield "|---|---|---|---:|---:|---:|---:|"
        groups = list(dict.fromkeys(each.group for each in self._outcomes))
        faults = list(dict.fromkeys((each.group, each.fault) for each in self._outcomes))
        for group, fault in sorted(faults, key=lambda pair: groups.index(pair[0])):
            of_fault = [each for each in self._outcomes if (each.group, each.fault) == (group, fault)]
            for stage in sorted({each.stage for each in of_fault}, key=_order):
                cases = [each for each in of_fault if each.stage == stage]
                lost, twice = sum(each.lost for each in cases), max(each.paid_twice for each in cases)
                longest = math.ceil(max(each.seconds for each in cases))
                yield f"| {group} | {fault} | {stage} | {len(cases)} | {lost} | {twice} | {longest} s |"

    def write(self, page: Path) -> None:
        """Put the rows between the page's two marks."""
        text = page.read_text("utf-8")
        before, _, rest = text.partition(_BEGIN)
        _, _, after = rest.partition(_END)
        page.write_text("\n".join([before + _BEGIN, *self.rows(), _END + after]), "utf-8")


def _order(stage: str) -> tuple[int, str]:
    return (_STAGES.index(stage) if stage in _STAGES else len(_STAGES), stage)
