"""The budget at hand: draws single calls from blocks of the ledger, and settles each block when its calls are back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from taskgalaxy_ops.errors import BudgetError, StoreError
from taskgalaxy_ops.storage.budget import Block, Ledger


@dataclass(slots=True)
class _Open:
    block: Block
    calls_left: int
    amount_left: int  # nano-dollars
    out: int = 0  # calls sent and not back
    calls: int = 0
    cost: int = 0
    closed: bool = False  # nothing more is drawn from it


class Till:
    """The ledger of a run, which its homes use one at a time (``turn``), and the blocks that they hold."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.turn = asyncio.Condition()
        self.open: dict[str, _Open] = {}

    async def take(self, home: str, calls: int, ceiling: int) -> None:
        """Open a block, or wait for what other blocks give back; the caller has its turn, and looks again.

        A block is held at its highest cost, which is many times what it will come to: while this run holds any,
        the budget is not spent. Raises BudgetError when it is.
        """
        try:
            taken = await asyncio.to_thread(self.ledger.take, home, calls=calls, ceiling=ceiling)
        except BudgetError:
            if not self.open:
                raise
            if not await self.settle(self.open.values()):
                await self.turn.wait()  # calls are out: they come back, and their blocks are settled
        else:
            self.open[taken.block] = _Open(taken, taken.calls, taken.ceiling)

    async def settle(self, blocks: Iterable[_Open]) -> bool:
        """Close these blocks, and settle those whose calls are all back; whether there were any."""
        done = [held for held in blocks if held.out == 0]
        for held in blocks:
            held.closed = True
        for held in done:
            if self.open.pop(held.block.block, None):
                await asyncio.to_thread(self.ledger.settle, held.block, calls=held.calls, cost=held.cost)
        if done:
            self.turn.notify_all()
        return bool(done)


class Purse:
    """Draws for one home. For one event loop; the ledger's store calls run in a thread, one at a time."""

    def __init__(self, till: Till, home: str, block_calls: int) -> None:
        self._till = till
        self._home = home
        self._block_calls = block_calls

    def _mine(self) -> list[_Open]:
        return [held for held in self._till.open.values() if held.block.home == self._home]

    async def draw(self, ceiling: int) -> str:
        """Hold ``ceiling`` nano-dollars for one call; gives the block's id. Raises BudgetError when nothing is left."""
        if (held := self._fitting(ceiling)) is None:
            async with self._till.turn:
                while (held := self._fitting(ceiling)) is None:  # another call may have opened one meanwhile
                    await self._till.settle(self._mine())
                    await self._till.take(self._home, self._block_calls, ceiling)
        held.calls_left -= 1
        held.amount_left -= ceiling
        held.out += 1
        return held.block.block

    def _fitting(self, ceiling: int) -> _Open | None:
        for held in self._mine():
            if not held.closed and held.calls_left > 0 and held.amount_left >= ceiling:
                return held
        return None

    async def back(self, block: str, cost: int, *, sent: bool = True) -> None:
        """A call is back, at this cost in nano-dollars; ``sent`` False: it never left, and counts for nothing."""
        held = self._till.open[block]
        held.out -= 1
        held.calls += 1 if sent else 0
        held.cost += cost
        if held.closed:
            # A reply that was paid for is not lost over this: an unsettled block counts at its highest, and is
            # settled from the journal by the home's next holder.
            with contextlib.suppress(StoreError):
                async with self._till.turn:
                    await self._till.settle([held])

    async def close(self) -> None:
        """Settle everything: no call may be out."""
        async with self._till.turn:
            await self._till.settle(self._mine())
