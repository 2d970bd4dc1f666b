"""The budget at hand: draws single calls from blocks of the ledger, and settles each block when its calls are back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

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


class Purse:
    """Draws for one home. For one event loop; the ledger's store calls run in a thread, one at a time."""

    def __init__(self, ledger: Ledger, ledger_lock: asyncio.Lock, home: str, block_calls: int) -> None:
        self._ledger = ledger
        self._lock = ledger_lock
        self._home = home
        self._block_calls = block_calls
        self._open: dict[str, _Open] = {}

    async def draw(self, ceiling: int) -> str:
        """Hold ``ceiling`` nano-dollars for one call; gives the block's id. Raises BudgetError when nothing is left."""
        if (held := self._fitting(ceiling)) is None:
            async with self._lock:
                if (held := self._fitting(ceiling)) is None:  # another call may have opened one meanwhile
                    for block in list(self._open.values()):
                        block.closed = True
                        await self._settle_if_done(block)
                    taken = await asyncio.to_thread(
                        self._ledger.take, self._home, calls=self._block_calls, ceiling=ceiling
                    )
                    held = _Open(taken, taken.calls, taken.ceiling)
                    self._open[taken.block] = held
        held.calls_left -= 1
        held.amount_left -= ceiling
        held.out += 1
        return held.block.block

    def _fitting(self, ceiling: int) -> _Open | None:
        for held in self._open.values():
            if not held.closed and held.calls_left > 0 and held.amount_left >= ceiling:
                return held
        return None

    async def back(self, block: str, cost: int, *, sent: bool = True) -> None:
        """A call is back, at this cost in nano-dollars; ``sent`` False: it never left, and counts for nothing."""
        held = self._open[block]
        held.out -= 1
        held.calls += 1 if sent else 0
        held.cost += cost
        if held.closed:
            async with self._lock:
                await self._settle_if_done(held)

    async def close(self) -> None:
        """Settle everything: no call may be out."""
        async with self._lock:
            for held in list(self._open.values()):
                held.closed = True
                await self._settle_if_done(held)

    async def _settle_if_done(self, held: _Open) -> None:
        if held.out == 0 and held.block.block in self._open:
            del self._open[held.block.block]
            await asyncio.to_thread(self._ledger.settle, held.block, calls=held.calls, cost=held.cost)
