"""What the cases came to, as the page that states it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path

_BEGIN, _END = "<!-- made by make chaos: begin -->", "<!-- end -->"
_STAGES = ("all", "ingest", "generate", "filter", "write", "vote", "release")
_HEAD = ("| | fault | stage | runs | lost | paid twice | longest wait |", "|---|---|---|---:|---:|---:|---:|")


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
    """Rows by fault and stage."""

    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)

    def rows(self) -> dict[tuple[str, str], list[str]]:
        """Markdown rows by group and fault."""
        found: dict[tuple[str, str], list[str]] = {}
        for group, fault in dict.fromkeys((each.group, each.fault) for each in self._outcomes):
            of_fault = [each for each in self._outcomes if (each.group, each.fault) == (group, fault)]
            for stage in sorted({each.stage for each in of_fault}, key=_order):
                cases = [each for each in of_fault if each.stage == stage]
                lost, twice = sum(each.lost for each in cases), max(each.paid_twice for each in cases)
                longest = math.ceil(max(each.seconds for each in cases))
                row = f"| {group} | {fault} | {stage} | {len(cases)} | {lost} | {twice} | {longest} s |"
                found.setdefault((group, fault), []).append(row)
        return found

    def write(self, page: Path) -> None:
        """Put the rows between the page's two marks; faults that were not tried this time keep theirs."""
        before, _, rest = page.read_text("utf-8").partition(_BEGIN)
        old, _, after = rest.partition(_END)
        rows: dict[tuple[str, str], list[str]] = {}
        for row in old.strip().splitlines()[2:]:
            _, group, fault, *_ = (cell.strip() for cell in row.split("|"))
            rows.setdefault((group, fault), []).append(row)
        rows |= self.rows()
        lines = [row for _, of_fault in sorted(rows.items()) for row in of_fault]
        page.write_text("\n".join([before + _BEGIN, *_HEAD, *lines, _END + after]), "utf-8")


def _order(stage: str) -> int:
    return _STAGES.index(stage)
