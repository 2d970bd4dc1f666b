"""The budget at hand: draws single calls from blocks of the ledger, and settles each block when its calls are back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from taskgalaxy_ops.errors import BudgetError, StoreError
from taskgalaxy_ops.storage.ledger import Block, Ledger, today

_LOOK_SECONDS = 0.5  # between two looks at what other workers gave back


@dataclass(slots=True, kw_only=True)
class _Open:
    block: Block
    calls_left: int
    amount_left: int  # nano-dollars
    tokens_left: int
    out: int = 0  # calls sent and not back
    calls: int = 0
    cost: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Refused:
    """What the ledger had no room for: until something comes back, it has none for what is as much."""

    ceiling: int
    tokens: int
    until: float  # on the monotonic clock: then others may have given back


class RunBudget:
    """The ledger of a run, which its image shards use one at a time (``turn``), and the blocks that they hold."""

    def __init__(self, ledger: Ledger, origins: Mapping[str, str] | None = None) -> None:
        """``origins``: the source that each image shard's calls count for."""
        self.ledger = ledger
        self.turn = asyncio.Condition()
        self.open: dict[str, _Open] = {}
        self._origins = origins or {}
        self._refused: dict[str, _Refused] = {}  # by source
        self._waiting = 0  # calls that found no room

    async def take(self, shard: str, calls: int, ceiling: int, tokens: int, batch: str = "") -> Block | None:
        """Open a block, or wait for what other blocks give back (None); the caller has its turn, and looks again.

        A block is held at its highest cost, which is many times what it will come to: while this run, or another
        living worker, holds any that stands in the way, the budget is not spent. Raises BudgetError when it is.
        ``batch``: whose requests the block is for: no call draws from it, and the batch's end settles it.
        """
        source = self._origins.get(shard, "")
        refused = self._refused.get(source)
        if refused and ceiling >= refused.ceiling and tokens >= refused.tokens:
            if (left := refused.until - time.monotonic()) > 0:
                await self._wait(left)
                return None
            del self._refused[source]
        try:
            taken = await asyncio.to_thread(
                self.ledger.take, shard, calls=calls, ceiling=ceiling, tokens=tokens, source=source, batch=batch
            )
        except BudgetError:
            returning = await asyncio.to_thread(
                self.ledger.returning, shard, ceiling=ceiling, tokens=tokens, source=source, mine=self.open.keys()
            )
            if not returning:
                raise
            if not await self.settle(held for block, held in self.open.items() if block in returning):
                self._refused[source] = _Refused(ceiling, tokens, time.monotonic() + _LOOK_SECONDS)
                await self._wait(_LOOK_SECONDS)
            return None
        if not batch:
            self.open[taken.block] = _Open(
                block=taken, calls_left=taken.calls, amount_left=taken.ceiling, tokens_left=taken.tokens
            )
        return taken

    async def _wait(self, seconds: float) -> None:
        """Until a call of this run is back, or so long."""
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.turn.wait(), seconds)
        finally:
            self._waiting -= 1

    async def back(self, held: _Open) -> None:
        """A call of this block is back."""
        if held.out == 0 and held.calls_left == 0:
            # A reply that was paid for is not lost over this: an unsettled block counts at its highest, and is
            # settled from the journal by the image shard's next holder.
            with contextlib.suppress(StoreError):
                async with self.turn:
                    await self.settle([held])
        elif self._waiting:  # what it did not come to may do for another
            async with self.turn:
                self.turn.notify_all()

    async def settle(self, blocks: Iterable[_Open]) -> bool:
        """Settle those of these blocks whose calls are all back; whether there were any."""
        # All are taken away before the first is settled: a call may draw meanwhile.
        done = [held for held in list(blocks) if held.out == 0 and held.block.block in self.open]
        for held in done:
            del self.open[held.block.block]
        for held in done:
            await asyncio.to_thread(
                self.ledger.settle, held.block, calls=held.calls, cost=held.cost, tokens=held.tokens
            )
        if done:
            self._refused.clear()
            self.turn.notify_all()
        return bool(done)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one call holds."""

    block: str
    ceiling: int  # nano-dollars
    tokens: int


class ShardBudget:
    """Draws for one image shard. For one event loop; the ledger's store calls run in a thread, one at a time."""

    def __init__(self, run_budget: RunBudget, shard: str, block_calls: int) -> None:
        self._run_budget = run_budget
        self._shard = shard
        self._block_calls = block_calls
        self.run = run_budget.ledger.run
        self.counts_money = run_budget.ledger.counts_money

    def _mine(self) -> list[_Open]:
        return [held for held in self._run_budget.open.values() if held.block.shard == self._shard]

    async def draw(self, ceiling: int, tokens: int = 0) -> Drawn:
        """Hold so many nano-dollars and tokens for one call, until it is ``back``. Raises BudgetError when spent."""
        if (held := self._fitting(ceiling, tokens)) is None:
            async with self._run_budget.turn:
                while (held := self._fitting(ceiling, tokens)) is None:  # another call may have opened one meanwhile
                    await self._run_budget.settle(self._mine())
                    await self._run_budget.take(self._shard, self._block_calls, ceiling, tokens)
        held.calls_left -= 1
        held.amount_left -= ceiling
        held.tokens_left -= tokens
        held.out += 1
        return Drawn(held.block.block, ceiling, tokens)

    def _fitting(self, ceiling: int, tokens: int) -> _Open | None:
        day = today()
        for held in self._mine():
            each = held.block.each
            fits = min(each.cost, held.amount_left) >= ceiling and min(each.tokens, held.tokens_left) >= tokens
            if held.calls_left > 0 and fits and held.block.day == day:  # a call counts for the day that it is sent on
                return held
        return None

    async def back(self, drawn: Drawn, cost: int, tokens: int = 0, *, sent: bool = True) -> None:
        """A call is back, at this cost (nano-dollars) and tokens; ``sent`` False: it never left, and is not counted.

        What it held and did not come to is there for the block's next call.
        """
        held = self._run_budget.open[drawn.block]
        held.out -= 1
        held.amount_left += drawn.ceiling - cost
        held.tokens_left += drawn.tokens - tokens
        held.calls += 1 if sent else 0
        held.cost += cost
        held.tokens += tokens
        await self._run_budget.back(held)

    async def close(self) -> None:
        """Settle everything: no call may be out."""
        async with self._run_budget.turn:
            await self._run_budget.settle(self._mine())
