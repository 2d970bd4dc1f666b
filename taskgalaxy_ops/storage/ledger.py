"""The budget's ledger: one log for the store, from which workers take small blocks before they send.

A **block** holds a number of calls and an amount: each call in flight is held at its highest possible cost, and what it
did not come to serves the next. Its living holder settles it with what the calls really cost; of a dead worker's block,
what the journal shows counts as it cost and the rest stays spent at its highest. So no cap can be overspent, be it the
store's lifetime's, a run's, a day's or a source's, whatever the number of workers, and a crash wastes a block at most.
Amounts are whole nano-dollars (1e-9 USD): sums are exact.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskgalaxy_ops.errors import BudgetError
from taskgalaxy_ops.storage import keys, leases
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.ledger_totals import LIFETIME, NOTHING, LedgerTotals, Scope, Spent, folded, highest
from taskgalaxy_ops.storage.log import Log, LogEntry

__all__ = ["LIFETIME", "NANO", "Block", "Caps", "Ledger", "Scopes", "Shown", "Spent", "today"]

NANO = 1_000_000_000
_WORTH_FOLDING = 256  # entries
_SHARE = 8  # a block takes at most an eighth of what fits: the last calls of a budget go to all who have some to make


class Fit(NamedTuple):
    """How many calls fit, by what they cost, by number and by tokens."""

    cost: float
    calls: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent; None is no cap."""

    max_cost: int | None = None  # nano-dollars
    max_calls: int | None = None
    max_tokens: int | None = None

    def fit(self, spent: Spent, each: Spent) -> Fit:
        """How many times ``each`` is left."""
        caps = zip((self.max_cost, self.max_calls, self.max_tokens), spent.to_json(), each.to_json(), strict=True)
        return Fit(*(math.inf if cap is None or one == 0 else (cap - there) // one for cap, there, one in caps))

    def told(self, name: str, spent: Spent) -> list[str]:
        """What is spent of each cap; ``name`` is its setting's."""
        found = []
        if self.max_calls is not None:
            found.append(f"{spent.calls:,} calls of {self.max_calls:,} ({name}.max_calls)")
        if self.max_cost is not None:
            found.append(f"${spent.cost / NANO:.4f} of ${self.max_cost / NANO:.2f} ({name}.max_cost)")
        if self.max_tokens is not None:
            found.append(f"{spent.tokens:,} tokens of {self.max_tokens:,} ({name}.max_tokens)")
        return found


@dataclass(frozen=True, slots=True)
class Scopes:
    """What is capped beside the store's lifetime."""

    run: str = ""  # whose calls this ledger's user makes
    of_run: Caps = Caps()
    of_day: Caps = Caps()  # of any one, in UTC
    of_source: Mapping[str, Caps] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of the budget that one worker may use for one image shard, within one day."""

    block: str
    shard: str
    calls: int
    ceiling: int  # nano-dollars
    tokens: int = 0
    each: Spent = NOTHING  # the most that one call may hold
    day: str = ""  # in UTC


class Shown(NamedTuple):
    """What a journal shows of a block."""

    cost: int = 0  # nano-dollars
    ceiling: int = 0  # nano-dollars that were held for these calls
    calls: int = 0  # that say what they took
    tokens: int = 0


def today() -> str:
    """The day in UTC, which the ledger's entries name: 2026-11-26."""
    return time.strftime("%Y-%m-%d", time.gmtime())


class Ledger:
    """Takes and settles blocks. Not for use by several threads."""

    def __init__(self, store: Store, caps: Caps, also: Scopes | None = None) -> None:
        self._store = store
        self._log = Log(store, keys.BUDGET_LOG)
        self._caps = caps
        self._also = also or Scopes()
        self._books = LedgerTotals()
        self._count = 0  # entries in the books
        self._first: LogEntry | None = None  # of them
        self._last: LogEntry | None = None

    @property
    def run(self) -> str:
        """Whose calls are taken."""
        return self._also.run

    @property
    def counts_money(self) -> bool:
        """Whether any cap is on money."""
        every = (self._caps, self._also.of_run, self._also.of_day, *self._also.of_source.values())
        return any(caps.max_cost is not None for caps in every)

    def spent(self, scope: Scope = LIFETIME) -> Spent:
        """What is spent or held as of now."""
        return self._read(self._log.read()).spent(scope)

    def _read(self, entries: list[LogEntry]) -> LedgerTotals:
        """The books of these entries: the ones that were booked already are not added again."""
        there = 0 < self._count <= len(entries)
        if not there or entries[0] is not self._first or entries[self._count - 1] is not self._last:
            self._books, self._count = LedgerTotals(), 0  # nothing was booked, or the log was folded since
        self._books.add(entries[self._count :])
        if entries:
            self._first, self._last, self._count = entries[0], entries[-1], len(entries)
        return self._books

    def _capped(self, source: str, day: str) -> Iterator[tuple[str, Scope, Caps]]:
        """What caps a call: the setting's name, its scope, the caps."""
        yield "budget", LIFETIME, self._caps
        yield "budget.run", ("run", self.run), self._also.of_run
        yield "budget.day", ("day", day), self._also.of_day
        yield f"budget.sources.{source}", ("source", source), self._also.of_source.get(source, Caps())

    def take(
        self, shard: str, *, calls: int, ceiling: int, tokens: int = 0, source: str = "", batch: str = ""
    ) -> Block:
        """A block of up to ``calls`` calls of at most ``ceiling`` nano-dollars and ``tokens`` each; less near the end.

        source: whose images the image shard's are. batch: whose requests it is for, and no others. Raises BudgetError
        where not one call fits; the message says what is left and how to raise the cap.
        """
        block, each, day = Block(block="", shard=shard, calls=0, ceiling=0), Spent(ceiling, 1, tokens), today()

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal block
            books = self._read(entries)
            fits = [caps.fit(books.spent(scope), each) for _, scope, caps in self._capped(source, day)]
            most = Fit(*map(min, zip(*fits, strict=True)))
            if min(most) < 1:
                return None
            cost, count, long = (int(min(calls, max(1, fit / _SHARE))) for fit in most)
            cost, long = min(cost, count), min(long, count)
            block = Block(
                block=uuid.uuid4().hex,
                shard=shard,
                calls=count,
                ceiling=cost * ceiling,
                tokens=long * tokens,
                each=each,
                day=day,
            )
            body = {
                "kind": "take",
                "block": block.block,
                "home": shard,
                "calls": count,
                "ceiling": block.ceiling,
                "tokens": block.tokens,
                "each": [ceiling, tokens],
                "day": day,
                "run": self.run,
                "source": source,
                "batch": batch,
            }
            return {name: value for name, value in body.items() if value != ""}

        if self._log.append_if(decide) is None:
            raise BudgetError(self._refusal(each, source, day))
        return block

    def told(self) -> list[str]:
        """What is spent of each cap beside the lifetime's, as of now: of today, and of each source that has one."""
        books = self._read(self._log.read())
        also = [("budget.day", ("day", today()), self._also.of_day)]
        also += [(f"budget.sources.{name}", ("source", name), caps) for name, caps in self._also.of_source.items()]
        return [line for name, scope, caps in also for line in caps.told(name, books.spent(scope))]

    def _refusal(self, each: Spent, source: str, day: str) -> str:
        books = self._read(self._log.known())
        parts, raised = [], []
        for name, scope, caps in self._capped(source, day):
            full = min(caps.fit(books.spent(scope), each)) < 1
            parts += caps.told(name, books.spent(scope)) if full or scope == LIFETIME else []
            raised += [name] if full else []
        most = f"the next call may cost up to ${each.cost / NANO:.4f} and take {each.tokens:,} tokens"
        later = ", or wait for tomorrow (UTC)," if raised == ["budget.day"] else ""
        return (
            f"budget spent: {'; '.join([*parts, most])}. What is left stays pending: "
            f"raise the cap ({', '.join(raised)}){later} and run again."
        )

    def returning(
        self, shard: str, *, ceiling: int, tokens: int = 0, source: str = "", mine: Collection[str] = ()
    ) -> set[str]:
        """Open blocks that may give back enough for a call that found no room; empty where they cannot.

        ``mine``: those of the caller's. Others count where the lease on their image shard stands: a dead worker gives
        nothing back. As the ledger was last read.
        """
        books = self._read(self._log.known())
        found: set[str] = set()
        alive: dict[str, bool] = {}
        each = Spent(ceiling, 1, tokens)
        for _, scope, caps in self._capped(source, today()):
            if min(caps.fit(books.spent(scope), each)) >= 1:
                continue
            here, left = set[str](), books.spent(scope)
            for block, body in books.held(scope).items():
                if "batch" in body:  # it may take a day
                    continue
                other = body["home"]
                if block not in mine and other not in alive:
                    alive[other] = other != shard and leases.held(self._store, other)
                if block in mine or alive[other]:
                    here.add(block)
                    left -= highest(body)
            if min(caps.fit(left, each)) < 1:
                return set()
            found |= here
        return found

    def settle(self, block: Block, *, calls: int, cost: int, tokens: int = 0) -> None:
        """Give back what of a block was not used. The first settlement of a block stands."""
        self._settle(block.block, calls, cost, tokens)

    def _settle(self, block: str, calls: int, cost: int, tokens: int) -> None:
        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            if block not in self._read(entries).open:
                return None
            return {"kind": "settle", "block": block, "calls": calls, "cost": cost, "tokens": tokens}

        self._log.append_if(decide)

    def settle_batch(self, record_actual: Mapping[str, Spent]) -> None:
        """Settle the blocks of a batch that has ended."""
        for block, amount in record_actual.items():
            self._settle(block, amount.calls, amount.cost, amount.tokens)

    def settle_orphans(
        self,
        shard: str,
        journalled: Mapping[str, Shown],
        batch: Callable[[str], Mapping[str, Spent] | None] = lambda nonce: {},
    ) -> None:
        """Settle the blocks that a dead worker left on an image shard; to be called under the image shard's lease.

        ``journalled``: what the journal shows of each block. What it does not show may have been sent: it stays spent,
        at its highest. ``batch``: what the blocks of a batch came to; None: it is under way, and they stay open.
        """
        for block, body in list(self._read(self._log.read()).open.items()):
            if body["home"] == shard and "batch" in body:
                if (record_actual := batch(body["batch"])) is not None:  # what was not recorded was not submitted
                    self.settle_batch({block: record_actual.get(block, NOTHING)})
            elif body["home"] == shard:
                shown, held = journalled.get(block, Shown()), highest(body)
                if "each" not in body:  # of an older version: a call held its part of the block to the end
                    self._settle(block, held.calls, shown.cost + max(0, held.cost - shown.ceiling), 0)
                    continue
                unseen = max(0, held.calls - shown.calls)
                cost, tokens = (
                    max(there, min(most, there + unseen * each))
                    for there, most, each in zip(
                        (shown.cost, shown.tokens), (held.cost, held.tokens), body["each"], strict=True
                    )
                )
                self._settle(block, held.calls, cost, tokens)

    def fold(self) -> None:
        """Compact it if it has grown long: whoever asks what is spent reads all of it."""
        if len(self._log.read()) > _WORTH_FOLDING:
            self.compact()

    def compact(self) -> None:
        """Fold settled blocks into one entry."""
        self._log.compact(folded)
