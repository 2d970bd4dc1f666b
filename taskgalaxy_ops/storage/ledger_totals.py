"""The sums of a ledger's entries: in all, and by day, run and source.

A ``take`` counts with all that it reserves until the first ``settle`` of its block. A ``settle`` of a block that is
settled or part of a total counts for nothing. Entries of older versions name no day, run or source, and no tokens: they
count for the store's lifetime alone, with no tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.storage.log import LogEntry

Scope = tuple[str, str]  # what is capped (lifetime, day, run, source), and which one of its kind
LIFETIME: Scope = ("lifetime", "")
_KINDS = {"day": "days", "run": "runs", "source": "sources"}  # field of a take: field of a total

_DAYS_KEPT = 7  # in a total; only today is looked up, by machines whose clocks may differ
_RUNS_KEPT = 1000  # in a total; the latest ones, among which are those still at work


@dataclass(frozen=True, slots=True)
class Spent:
    """An amount: settled blocks count at their cost, open blocks with all that they reserve."""

    cost: int = 0  # nano-dollars
    calls: int = 0
    tokens: int = 0

    def to_json(self) -> tuple[int, int, int]:
        """The amount in the form that entries hold: cost, calls, tokens."""
        return self.cost, self.calls, self.tokens

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cost + other.cost, self.calls + other.calls, self.tokens + other.tokens)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cost - other.cost, self.calls - other.calls, self.tokens - other.tokens)


NOTHING = Spent()


@dataclass(slots=True)
class LedgerTotals:
    """The sums of the entries that were added so far."""

    open: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by block: its take
    _sums: dict[Scope, Spent] = field(default_factory=dict)
    _last_day: dict[str, str] = field(default_factory=dict)  # by run

    def spent(self, scope: Scope = LIFETIME) -> Spent:
        """What is spent in a scope; open blocks count with all that they reserve."""
        return self._sums.get(scope, NOTHING)

    def held(self, scope: Scope) -> dict[str, Mapping[str, Any]]:
        """The takes of a scope's open blocks, by block."""
        return {block: body for block, body in self.open.items() if scope in scopes(body)}

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Add the entries that follow the ones added so far, in order."""
        for body in (entry.body for entry in entries):
            if body["kind"] == "take":
                self.open[body["block"]] = body
                self._count(scopes(body), highest(body))
                if "run" in body:
                    self._last_day[body["run"]] = max(body["day"], self._last_day.get(body["run"], ""))
            elif body["kind"] == "total":
                self._add_total(body)
            elif taken := self.open.pop(body["block"], None):
                self._count(scopes(taken), Spent(body["cost"], body["calls"], body.get("tokens", 0)) - highest(taken))

    def _count(self, counted_in: Iterable[Scope], amount: Spent) -> None:
        for scope in counted_in:
            self._sums[scope] = self._sums.get(scope, NOTHING) + amount

    def _add_total(self, body: Mapping[str, Any]) -> None:
        self._count([LIFETIME], Spent(body["cost"], body["calls"], body.get("tokens", 0)))
        for kind, kinds in _KINDS.items():
            for name, amount in body.get(kinds, {}).items():
                self._count([(kind, name)], Spent(*amount))
        for run, day in body.get("last_days", {}).items():
            self._last_day[run] = max(day, self._last_day.get(run, ""))

    def total(self) -> dict[str, Any]:
        """The body of an entry that holds the sums of all settled blocks."""
        for body in self.open.values():
            self._count(scopes(body), NOTHING - highest(body))
        settled = {scope: amount for scope, amount in self._sums.items() if amount != NOTHING}
        for body in self.open.values():
            self._count(scopes(body), highest(body))
        runs = dict(sorted(self._last_day.items(), key=lambda item: item[1])[-_RUNS_KEPT:])
        kept = {
            "days": sorted(name for kind, name in settled if kind == "day")[-_DAYS_KEPT:],
            "runs": sorted(name for kind, name in settled if kind == "run" and name in runs),
            "sources": sorted(name for kind, name in settled if kind == "source"),
        }
        cost, calls, tokens = settled.get(LIFETIME, NOTHING).to_json()
        entry: dict[str, Any] = {"kind": "total", "cost": cost, "calls": calls, "tokens": tokens}
        for kind, kinds in _KINDS.items():
            if kept[kinds]:
                entry[kinds] = {name: list(settled[kind, name].to_json()) for name in kept[kinds]}
        return {**entry, "last_days": {run: runs[run] for run in kept["runs"]}} if kept["runs"] else entry


def folded(entries: Sequence[LogEntry]) -> list[LogEntry]:
    """The same ledger in few entries: the takes of open blocks, and a total of all other entries."""
    totals = LedgerTotals()
    totals.add(entries)
    open_takes = [e for e in entries if e.body["kind"] == "take" and totals.open.get(e.body["block"]) is e.body]
    last = max((entry.number for entry in entries if entry not in open_takes), default=0)
    if not last:
        return open_takes
    return sorted([*open_takes, LogEntry(last, totals.total())], key=lambda entry: entry.number)


def scopes(take: Mapping[str, Any]) -> list[Scope]:
    """The scopes that a block counts in."""
    return [LIFETIME, *((kind, take[kind]) for kind in _KINDS if kind in take)]


def highest(take: Mapping[str, Any]) -> Spent:
    """All that a block reserves: what it counts while it is open."""
    return Spent(take["ceiling"], take["calls"], take.get("tokens", 0))
