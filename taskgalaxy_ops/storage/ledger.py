"""The budget's ledger: one log for the store, in which workers reserve small blocks before they send requests.

A **block** reserves a number of calls and an amount. A call in flight holds the most that it can cost; when it has cost
less, the rest serves the block's next call. The holder of a block settles it with what its calls really cost. If the
holder died, the next worker settles the block: calls that the journal shows count at their cost, and the others stay
spent at the most that they could cost. So no cap can be overspent (of the store's lifetime, a run, a day or a source),
whatever the number of workers, and a crash wastes at most a block. Amounts are whole nano-dollars (1e-9 USD), so that
sums are exact.
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

__all__ = ["LIFETIME", "NANO", "Block", "Caps", "JournaledCalls", "Ledger", "Scopes", "Spent", "today"]

NANO = 1_000_000_000
_WORTH_FOLDING = 256  # entries
_SHARE = 8  # a block takes at most an eighth of what fits, so that all workers share the last calls


class Fit(NamedTuple):
    """How many more calls fit under the caps on cost, on calls and on tokens; infinity without a cap."""

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
        """How many calls of at most ``each`` fit under these caps beside what is spent."""
        caps = zip((self.max_cost, self.max_calls, self.max_tokens), spent.to_json(), each.to_json(), strict=True)
        return Fit(*(math.inf if cap is None or amount == 0 else (cap - used) // amount for cap, used, amount in caps))

    def describe(self, name: str, spent: Spent) -> list[str]:
        """A phrase for each cap that says how much of it is spent; ``name``: the caps' setting."""
        phrases = []
        if self.max_calls is not None:
            phrases.append(f"{spent.calls:,} calls of {self.max_calls:,} ({name}.max_calls)")
        if self.max_cost is not None:
            phrases.append(f"${spent.cost / NANO:.4f} of ${self.max_cost / NANO:.2f} ({name}.max_cost)")
        if self.max_tokens is not None:
            phrases.append(f"{spent.tokens:,} tokens of {self.max_tokens:,} ({name}.max_tokens)")
        return phrases


@dataclass(frozen=True, slots=True)
class Scopes:
    """The caps beside those on the store's lifetime."""

    run: str = ""  # the run that this ledger's calls count for
    of_run: Caps = Caps()
    of_day: Caps = Caps()  # of each day, in UTC
    of_source: Mapping[str, Caps] = field(default_factory=dict)  # by source


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of the budget that one worker may spend on one image shard, within one day."""

    block: str  # its id, hex
    shard: str
    calls: int  # reserved
    ceiling: int  # nano-dollars reserved
    tokens: int = 0  # reserved
    each: Spent = NOTHING  # the most that one call may hold
    day: str = ""  # in UTC


class JournaledCalls(NamedTuple):
    """The calls of one block that a journal shows."""

    cost: int = 0  # nano-dollars
    ceiling: int = 0  # nano-dollars that the block held for these calls
    calls: int = 0  # whose replies tell their tokens
    tokens: int = 0


def today() -> str:
    """The day in UTC, as the ledger's entries write it: 2026-11-26."""
    return time.strftime("%Y-%m-%d", time.gmtime())


class Ledger:
    """Takes and settles blocks. For one thread at a time."""

    def __init__(self, store: Store, caps: Caps, also: Scopes | None = None) -> None:
        self._store = store
        self._log = Log(store, keys.BUDGET_LOG)
        self._caps = caps
        self._also = also or Scopes()
        self._totals = LedgerTotals()
        self._count = 0  # entries that are in the totals
        self._first: LogEntry | None = None  # the first of these entries
        self._last: LogEntry | None = None

    @property
    def run(self) -> str:
        """The run that this ledger's calls count for."""
        return self._also.run

    @property
    def counts_money(self) -> bool:
        """Whether any cap limits money."""
        every = (self._caps, self._also.of_run, self._also.of_day, *self._also.of_source.values())
        return any(caps.max_cost is not None for caps in every)

    def spent(self, scope: Scope = LIFETIME) -> Spent:
        """What is spent, or held by open blocks, in a scope now."""
        return self._read(self._log.read()).spent(scope)

    def _read(self, entries: list[LogEntry]) -> LedgerTotals:
        """The totals of these entries. Entries that were added before are not added again."""
        extends = 0 < self._count <= len(entries)
        if not extends or entries[0] is not self._first or entries[self._count - 1] is not self._last:
            self._totals, self._count = LedgerTotals(), 0  # nothing was added yet, or the log was compacted since
        self._totals.add(entries[self._count :])
        if entries:
            self._first, self._last, self._count = entries[0], entries[-1], len(entries)
        return self._totals

    def _capped(self, source: str, day: str) -> Iterator[tuple[str, Scope, Caps]]:
        """The caps on a call, each with its setting's name and its scope."""
        yield "budget", LIFETIME, self._caps
        yield "budget.run", ("run", self.run), self._also.of_run
        yield "budget.day", ("day", day), self._also.of_day
        yield f"budget.sources.{source}", ("source", source), self._also.of_source.get(source, Caps())

    def take(
        self, shard: str, *, calls: int, ceiling: int, tokens: int = 0, source: str = "", batch: str = ""
    ) -> Block:
        """Reserve a block of up to ``calls`` calls of at most ``ceiling`` nano-dollars and ``tokens`` each.

        Near a cap the block has fewer calls. source: the source that the shard's calls count for. batch: the nonce of
        the batch whose requests the block serves. Raises BudgetError if not even one call fits; the message says what
        is left and how to raise the cap.
        """
        block, each, day = Block(block="", shard=shard, calls=0, ceiling=0), Spent(ceiling, 1, tokens), today()

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal block
            totals = self._read(entries)
            fits = [caps.fit(totals.spent(scope), each) for _, scope, caps in self._capped(source, day)]
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

    def describe(self) -> list[str]:
        """A phrase for each cap on today and on a source that says how much of it is spent now."""
        totals = self._read(self._log.read())
        also = [("budget.day", ("day", today()), self._also.of_day)]
        also += [(f"budget.sources.{name}", ("source", name), caps) for name, caps in self._also.of_source.items()]
        return [line for name, scope, caps in also for line in caps.describe(name, totals.spent(scope))]

    def reached(self, source: str) -> list[str]:
        """The settings of the caps under which a call about a source does not fit now, if it is as large as one so far.

        A call counts with the most that it may cost and take.
        """
        entries = self._log.read()
        totals = self._read(entries)
        sizes = [entry.body["each"] for entry in entries if "each" in entry.body]
        cost, tokens = (max(size) for size in zip((1, 1), *sizes, strict=True))
        each = Spent(cost, 1, tokens)
        capped = self._capped(source, today())
        return [name for name, scope, caps in capped if min(caps.fit(totals.spent(scope), each)) < 1]

    def batches(self, source: str) -> int:
        """The number of batches about a source that have not ended."""
        held = self._read(self._log.read()).held(("source", source))
        return len({body["batch"] for body in held.values() if "batch" in body})

    def _refusal(self, each: Spent, source: str, day: str) -> str:
        totals = self._read(self._log.known())
        phrases, reached = [], []
        for name, scope, caps in self._capped(source, day):
            full = min(caps.fit(totals.spent(scope), each)) < 1
            phrases += caps.describe(name, totals.spent(scope)) if full or scope == LIFETIME else []
            reached += [name] if full else []
        most = f"the next call may cost up to ${each.cost / NANO:.4f} and take {each.tokens:,} tokens"
        later = ", or wait for tomorrow (UTC)," if reached == ["budget.day"] else ""
        return (
            f"budget spent: {'; '.join([*phrases, most])}. What is left stays pending: "
            f"raise the cap ({', '.join(reached)}){later} and run again."
        )

    def returning(
        self, shard: str, *, ceiling: int, tokens: int = 0, source: str = "", mine: Collection[str] = ()
    ) -> set[str]:
        """The open blocks that may give back enough for a call that does not fit now; empty if they cannot.

        ``mine``: the caller's own blocks. Blocks of other workers count while the lease on their image shard is held,
        since a dead worker gives nothing back. Uses the ledger as of its last read.
        """
        totals = self._read(self._log.known())
        blocks: set[str] = set()
        alive: dict[str, bool] = {}
        each = Spent(ceiling, 1, tokens)
        for _, scope, caps in self._capped(source, today()):
            if min(caps.fit(totals.spent(scope), each)) >= 1:
                continue
            in_scope, left = set[str](), totals.spent(scope)
            for block, body in totals.held(scope).items():
                if "batch" in body:  # a batch may take a day
                    continue
                other = body["home"]
                if block not in mine and other not in alive:
                    alive[other] = other != shard and leases.held(self._store, other)
                if block in mine or alive[other]:
                    in_scope.add(block)
                    left -= highest(body)
            if min(caps.fit(left, each)) < 1:
                return set()
            blocks |= in_scope
        return blocks

    def settle(self, block: Block, *, calls: int, cost: int, tokens: int = 0) -> None:
        """Give back what a block did not use. Only the first settlement of a block counts."""
        self._settle(block.block, calls, cost, tokens)

    def _settle(self, block: str, calls: int, cost: int, tokens: int) -> None:
        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            if block not in self._read(entries).open:
                return None
            return {"kind": "settle", "block": block, "calls": calls, "cost": cost, "tokens": tokens}

        self._log.append_if(decide)

    def settle_batch(self, blocks: Mapping[str, Spent]) -> None:
        """Settle the blocks of a batch that has ended, each with what its calls cost."""
        for block, amount in blocks.items():
            self._settle(block, amount.calls, amount.cost, amount.tokens)

    def settle_orphans(
        self,
        shard: str,
        journalled: Mapping[str, JournaledCalls],
        batch: Callable[[str], Mapping[str, Spent] | None] = lambda nonce: {},
    ) -> None:
        """Settle the blocks that a dead worker left open on an image shard. The caller holds the shard's lease.

        ``journalled``: the calls of each block that the journal shows. Other calls may have been sent, so they stay
        spent at the most that they could cost. ``batch``: maps a batch's nonce to what its blocks' calls cost, or to
        None while the batch has not ended; its blocks stay open then.
        """
        for block, body in list(self._read(self._log.read()).open.items()):
            if body["home"] == shard and "batch" in body:
                if (settled := batch(body["batch"])) is not None:  # a batch without a record was not submitted
                    self.settle_batch({block: settled.get(block, NOTHING)})
            elif body["home"] == shard:
                shown, held = journalled.get(block, JournaledCalls()), highest(body)
                if "each" not in body:  # of an older version: each call held its part of the block to the end
                    self._settle(block, held.calls, shown.cost + max(0, held.cost - shown.ceiling), 0)
                    continue
                unseen = max(0, held.calls - shown.calls)
                cost, tokens = (
                    max(used, min(most, used + unseen * each))
                    for used, most, each in zip(
                        (shown.cost, shown.tokens), (held.cost, held.tokens), body["each"], strict=True
                    )
                )
                self._settle(block, held.calls, cost, tokens)

    def fold(self) -> None:
        """Compact the log if it has grown long, since each reader reads all of it."""
        if len(self._log.read()) > _WORTH_FOLDING:
            self.compact()

    def compact(self) -> None:
        """Replace the entries of settled blocks by one total."""
        self._log.compact(folded)
