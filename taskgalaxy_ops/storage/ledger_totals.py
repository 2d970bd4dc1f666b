"""What a ledger's entries come to: in all, and by day, run and source. Kept up as entries come, and folded.

A ``take`` counts at its highest until the first ``settle`` of its block; one of a block that is settled or folded
already counts for nothing. Entries of older versions name no day, run or source, and no tokens: they count for the
store's lifetime alone, at no token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.storage.log import LogEntry

Scope = tuple[str, str]  # what is capped, and which one of them
LIFETIME: Scope = ("lifetime", "")
_KINDS = {"day": "days", "run": "runs", "source": "sources"}  # field of a take: field of a total

_DAYS_KEPT = 7  # in a total: only today's is asked for, by clocks that may differ
_RUNS_KEPT = 1000  # the latest: a run that goes on is among them


@dataclass(frozen=True, slots=True)
class Spent:
    """What is settled, at its cost, and what is held, at its highest."""

    cost: int = 0  # nano-dollars
    calls: int = 0
    tokens: int = 0

    def to_json(self) -> tuple[int, int, int]:
        """As entries list it."""
        return self.cost, self.calls, self.tokens

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cost + other.cost, self.calls + other.calls, self.tokens + other.tokens)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cost - other.cost, self.calls - other.calls, self.tokens - other.tokens)


NOTHING = Spent()


@dataclass(slots=True)
class LedgerTotals:
    """The sums as of the entries that were added."""

    open: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by block: its take
    _sums: dict[Scope, Spent] = field(default_factory=dict)
    _last_day: dict[str, str] = field(default_factory=dict)  # by run

    def spent(self, scope: Scope = LIFETIME) -> Spent:
        """Of a scope: open blocks at their highest."""
        return self._sums.get(scope, NOTHING)

    def held(self, scope: Scope) -> dict[str, Mapping[str, Any]]:
        """The open blocks of a scope."""
        return {block: body for block, body in self.open.items() if scope in scopes(body)}

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Add what follows, in order."""
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

    def _count(self, where: Iterable[Scope], amount: Spent) -> None:
        for scope in where:
            self._sums[scope] = self._sums.get(scope, NOTHING) + amount

    def _add_total(self, body: Mapping[str, Any]) -> None:
        self._count([LIFETIME], Spent(body["cost"], body["calls"], body.get("tokens", 0)))
        for kind, kinds in _KINDS.items():
            for name, amount in body.get(kinds, {}).items():
                self._count([(kind, name)], Spent(*amount))
        for run, day in body.get("last_days", {}).items():
            self._last_day[run] = max(day, self._last_day.get(run, ""))

    def total(self) -> dict[str, Any]:
        """The body of an entry that stands for all that is settled."""
        for body in self.open.values():
            self._count(scopes(body), NOTHING - highest(body))
        done = {scope: amount for scope, amount in self._sums.items() if amount != NOTHING}
        for body in self.open.values():
            self._count(scopes(body), highest(body))
        runs = dict(sorted(self._last_day.items(), key=lambda each: each[1])[-_RUNS_KEPT:])
        kept = {
            "days": sorted(name for kind, name in done if kind == "day")[-_DAYS_KEPT:],
            "runs": sorted(name for kind, name in done if kind == "run" and name in runs),
            "sources": sorted(name for kind, name in done if kind == "source"),
        }
        cost, calls, tokens = done.get(LIFETIME, NOTHING).to_json()
        found: dict[str, Any] = {"kind": "total", "cost": cost, "calls": calls, "tokens": tokens}
        for kind, kinds in _KINDS.items():
            if kept[kinds]:
                found[kinds] = {name: list(done[kind, name].to_json()) for name in kept[kinds]}
        return {**found, "last_days": {run: runs[run] for run in kept["runs"]}} if kept["runs"] else found


def folded(entries: Sequence[LogEntry]) -> list[LogEntry]:
    """The same ledger in as few entries as can be: the blocks that are open, and a total of the others."""
    books = LedgerTotals()
    books.add(entries)
    still = [e for e in entries if e.body["kind"] == "take" and books.open.get(e.body["block"]) is e.body]
    last = max((e.number for e in entries if e not in still), default=0)
    if not last:
        return still
    return sorted([*still, LogEntry(last, books.total())], key=lambda entry: entry.number)


def scopes(take: Mapping[str, Any]) -> list[Scope]:
    """What a block counts for."""
    return [LIFETIME, *((kind, take[kind]) for kind in _KINDS if kind in take)]


def highest(take: Mapping[str, Any]) -> Spent:
    """What a block counts while it is open."""
    return Spent(take["ceiling"], take["calls"], take.get("tokens", 0))
