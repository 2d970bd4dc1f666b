"""The budget's ledger: one log for the store, from which workers take small blocks before they send.

A **block** holds a number of calls and an amount at the calls' highest possible cost. Its living holder settles it
with what the calls really cost; of a dead worker's block, what the journal shows counts as it cost and the rest stays
spent at its highest. So the budget cannot be overspent, whatever the number of workers, and a crash wastes a block at
most. Amounts are whole nano-dollars (1e-9 USD): sums are exact.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.errors import BudgetError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry

NANO = 1_000_000_000
_WORTH_FOLDING = 256  # entries


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that a store may spend in its lifetime; None is no cap."""

    max_cost: int | None  # nano-dollars
    max_calls: int | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What the ledger holds: settled blocks at their cost, open ones at their highest."""

    cost: int
    calls: int


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the budget that one worker may use for one home."""

    block: str
    home: str
    calls: int
    ceiling: int  # nano-dollars


class Ledger:
    """Takes and settles blocks. Not for use by several threads."""

    def __init__(self, store: Store, caps: Caps) -> None:
        self._log = Log(store, keys.BUDGET_LOG)
        self._caps = caps

    def spent(self) -> Spent:
        """What is spent or held as of now."""
        return _spent(self._log.read())

    def take(self, home: str, *, calls: int, ceiling: int) -> Block:
        """A block of up to ``calls`` calls of at most ``ceiling`` nano-dollars each; smaller near the end.

        Raises BudgetError where not one call fits; the message says what is left and how to raise the cap.
        """
        block = Block("", home, 0, 0)

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal block
            spent = _spent(entries)
            fit = calls
            if self._caps.max_calls is not None:
                fit = min(fit, self._caps.max_calls - spent.calls)
            if self._caps.max_cost is not None and ceiling > 0:
                fit = min(fit, (self._caps.max_cost - spent.cost) // ceiling)
            if fit < 1:
                return None
            block = Block(uuid.uuid4().hex, home, fit, fit * ceiling)
            return {"kind": "take", "block": block.block, "home": home, "calls": fit, "ceiling": block.ceiling}

        if self._log.append_if(decide) is None:
            raise BudgetError(self._refusal(ceiling))
        return block

    def _refusal(self, ceiling: int) -> str:
        spent = _spent(self._log.known())
        parts = [f"budget spent: {spent.calls} calls"]
        if self._caps.max_calls is not None:
            parts[0] += f" of {self._caps.max_calls} (budget.max_calls)"
        if self._caps.max_cost is not None:
            parts.append(
                f"${spent.cost / NANO:.4f} of ${self._caps.max_cost / NANO:.2f} (budget.max_cost); "
                f"the next call may cost up to ${ceiling / NANO:.4f}"
            )
        return "; ".join(parts) + ". What is left stays pending: raise the cap and run again."

    def settle(self, block: Block, *, calls: int, cost: int) -> None:
        """Give back what of a block was not used. The first settlement of a block stands."""
        self._settle(block.block, calls, cost)

    def _settle(self, block: str, calls: int, cost: int) -> None:
        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            if all(body["block"] != block for body in _open(entries)):
                return None
            return {"kind": "settle", "block": block, "calls": calls, "cost": cost}

        self._log.append_if(decide)

    def settle_orphans(self, home: str, journalled: Mapping[str, tuple[int, int]]) -> None:
        """Settle the blocks that a dead worker left on a home; to be called under the home's lease.

        ``journalled``: for each block, the cost and the ceilings of the calls that the journal shows. What it does not
        show may have been sent: it stays spent, at its highest.
        """
        for entry in _open(self._log.read()):
            if entry["home"] == home:
                cost, ceilings = journalled.get(entry["block"], (0, 0))
                self._settle(entry["block"], entry["calls"], cost + max(0, entry["ceiling"] - ceilings))

    def fold(self) -> None:
        """Compact it if it has grown long: whoever asks what is spent reads all of it."""
        if len(self._log.read()) > _WORTH_FOLDING:
            self.compact()

    def compact(self) -> None:
        """Fold settled blocks into one entry."""
        self._log.compact(_folded)


def _folded(entries: list[LogEntry]) -> list[LogEntry]:
    if not entries:
        return []
    settled = {e.body["block"] for e in entries if e.body["kind"] == "settle"}
    still = [e for e in entries if e.body["kind"] == "take" and e.body["block"] not in settled]
    done = _spent([e for e in entries if e not in still])
    last = max((e.number for e in entries if e not in still), default=0)
    if not last:
        return still
    total = LogEntry(last, {"kind": "total", "calls": done.calls, "cost": done.cost})
    return sorted([*still, total], key=lambda entry: entry.number)


def _open(entries: list[LogEntry]) -> list[Mapping[str, Any]]:
    settled = {e.body["block"] for e in entries if e.body["kind"] == "settle"}
    return [e.body for e in entries if e.body["kind"] == "take" and e.body["block"] not in settled]


def _spent(entries: list[LogEntry]) -> Spent:
    cost = calls = 0
    open_blocks: set[str] = set()  # a settlement of a block that is settled or folded already counts for nothing
    for entry in entries:
        body = entry.body
        if body["kind"] == "take":
            open_blocks.add(body["block"])
        elif body["kind"] == "total" or body["block"] in open_blocks:
            open_blocks.discard(body.get("block", ""))
            cost, calls = cost + body["cost"], calls + body["calls"]
    for body in _open(entries):
        cost, calls = cost + body["ceiling"], calls + body["calls"]
    return Spent(cost, calls)
