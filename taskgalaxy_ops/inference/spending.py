"""Draws single calls from the ledger's blocks, and settles a block when all of its calls are back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from taskgalaxy_ops.errors import BudgetError, StoreError
from taskgalaxy_ops.storage.ledger import Block, Ledger, today

_LOOK_SECONDS = 0.5  # between two looks whether other workers gave something back


@dataclass(slots=True, kw_only=True)
class _OpenBlock:
    """A block and how much of it is drawn and used."""

    block: Block
    calls_left: int
    amount_left: int  # nano-dollars
    tokens_left: int
    out: int = 0  # calls drawn and not back
    calls: int = 0  # back and counted
    cost: int = 0  # of the calls that are back, nano-dollars
    tokens: int = 0  # of the calls that are back


@dataclass(frozen=True, slots=True)
class _Refused:
    """A call that the ledger refused. Until a block gives something back, it would refuse calls of that size, too."""

    ceiling: int
    tokens: int
    until: float  # on the monotonic clock; after that, other workers may have given something back


class RunBudget:
    """The ledger of a run and the run's open blocks. Image shards use the ledger one at a time, under ``turn``."""

    def __init__(self, ledger: Ledger, origins: Mapping[str, str] | None = None) -> None:
        """``origins``: the source that each image shard's calls count for."""
        self.ledger = ledger
        self.turn = asyncio.Condition()
        self.open: dict[str, _OpenBlock] = {}
        self._origins = origins or {}
        self._refused: dict[str, _Refused] = {}  # by source: the last call that the ledger refused
        self._waiting = 0  # calls that wait for room

    async def take(self, shard: str, calls: int, ceiling: int, tokens: int, batch: str = "") -> Block | None:
        """Open a block; or wait until other blocks may have given something back, and return None.

        The caller holds ``turn``, and tries again after None. An open block holds the most that its calls can cost,
        many times what they will cost. While blocks of this run or of another living worker stand in the way, the
        budget is therefore not spent. Raises BudgetError when it is. ``batch``: the nonce of the batch whose requests
        the block is for. No call draws from such a block, and the batch's end settles it.
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
            self.open[taken.block] = _OpenBlock(
                block=taken, calls_left=taken.calls, amount_left=taken.ceiling, tokens_left=taken.tokens
            )
        return taken

    async def _wait(self, seconds: float) -> None:
        """Wait until a block of this run gives something back, at most ``seconds``."""
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.turn.wait(), seconds)
        finally:
            self._waiting -= 1

    async def back(self, held: _OpenBlock) -> None:
        """Settle the block if this call was its last; else let waiting calls try again."""
        if held.out == 0 and held.calls_left == 0:
            # A store error must not lose the reply that was paid for. The block then counts with all that it reserves,
            # and the image shard's next holder settles it from the journal.
            with contextlib.suppress(StoreError):
                async with self.turn:
                    await self.settle([held])
        elif self._waiting:  # what the call did not use may be enough for another
            async with self.turn:
                self.turn.notify_all()

    async def settle(self, blocks: Iterable[_OpenBlock]) -> bool:
        """Settle the blocks among these whose calls are all back; True if there were any."""
        # Remove all of them before settling the first, since a call may draw from a block meanwhile.
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
    """What one call holds of a block."""

    block: str
    ceiling: int  # nano-dollars
    tokens: int


class ShardBudget:
    """Draws calls for one image shard. For one event loop; the ledger works in a thread, one call at a time."""

    def __init__(self, run_budget: RunBudget, shard: str, block_calls: int) -> None:
        self._run_budget = run_budget
        self._shard = shard
        self._block_calls = block_calls
        self.run = run_budget.ledger.run
        self.counts_money = run_budget.ledger.counts_money

    def _own_blocks(self) -> list[_OpenBlock]:
        return [held for held in self._run_budget.open.values() if held.block.shard == self._shard]

    async def draw(self, ceiling: int, tokens: int = 0) -> Drawn:
        """Hold ``ceiling`` nano-dollars and ``tokens`` for one call until ``back``. Raises BudgetError."""
        if (held := self._fitting(ceiling, tokens)) is None:
            async with self._run_budget.turn:
                while (
                    held := self._fitting(ceiling, tokens)
                ) is None:  # another call may have opened a block meanwhile
                    await self._run_budget.settle(self._own_blocks())
                    await self._run_budget.take(self._shard, self._block_calls, ceiling, tokens)
        held.calls_left -= 1
        held.amount_left -= ceiling
        held.tokens_left -= tokens
        held.out += 1
        return Drawn(held.block.block, ceiling, tokens)

    def _fitting(self, ceiling: int, tokens: int) -> _OpenBlock | None:
        day = today()
        for held in self._own_blocks():
            most = held.block.each
            fits = min(most.cost, held.amount_left) >= ceiling and min(most.tokens, held.tokens_left) >= tokens
            if held.calls_left > 0 and fits and held.block.day == day:  # a call counts for the day on which it is sent
                return held
        return None

    async def back(self, drawn: Drawn, cost: int, tokens: int = 0, *, sent: bool = True) -> None:
        """Return a call's hold, with its cost (nano-dollars) and tokens. ``sent`` False: it was not sent, nor counts.

        The block's next call may use what this one held and did not use.
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
        """Settle the shard's blocks. All of its calls must be back."""
        async with self._run_budget.turn:
            await self._run_budget.settle(self._own_blocks())
