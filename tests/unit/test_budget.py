"""The budget's ledger: never overspent, whoever dies when."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from fakes import MemoryStore, Schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.errors import BudgetError
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.budget import Caps, Ledger, Shown, Spent
from taskgalaxy_ops.storage.log import Log


def test_a_block_is_held_at_its_highest_and_settled_at_its_cost(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(max_cost=1000, max_calls=100))
    block = ledger.take("h", calls=2, ceiling=50)
    assert (block.calls, block.ceiling) == (2, 100)
    assert ledger.spent() == Spent(100, 2)
    ledger.settle(block, calls=1, cost=40)
    assert ledger.spent() == Ledger(folder_store, Caps(None, None)).spent() == Spent(40, 1)


def test_the_first_settlement_stands(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(None, None))
    block = ledger.take("h", calls=4, ceiling=50)
    ledger.settle(block, calls=3, cost=70)
    ledger.settle(block, calls=0, cost=0)
    assert ledger.spent() == Spent(70, 3)


def test_blocks_shrink_towards_the_end(folder_store: Store) -> None:
    """Each takes an eighth of what is left at most, so that many workers share the last calls; one at the least."""
    ledger = Ledger(folder_store, Caps(max_cost=None, max_calls=100))
    taken = []
    with pytest.raises(BudgetError, match=r"budget spent: 100 calls of 100 \(budget.max_calls\)"):
        while True:
            taken.append(ledger.take("h", calls=10, ceiling=10).calls)
    assert taken[:3] == [10, 10, 10]
    assert taken == sorted(taken, reverse=True)
    assert taken[-8:] == [1] * 8
    assert sum(taken) == 100
    ledger = Ledger(folder_store, Caps(max_cost=1025, max_calls=None))
    assert [ledger.take("h", calls=9, ceiling=10).calls for _ in range(2)] == [1, 1]
    with pytest.raises(BudgetError, match=r"raise the cap \(budget\) and run again"):
        ledger.take("h", calls=1, ceiling=10)


def test_free_calls_meet_only_the_cap_on_calls(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(max_cost=0, max_calls=3))
    assert [ledger.take("h", calls=9, ceiling=0).calls for _ in range(3)] == [1, 1, 1]
    with pytest.raises(BudgetError):
        Ledger(folder_store, Caps(max_cost=0, max_calls=None)).take("h", calls=1, ceiling=1)


def test_a_dead_workers_block_counts_what_the_journal_shows_and_the_rest_at_its_highest(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(None, None))
    block = ledger.take("h", calls=4, ceiling=50)
    other = ledger.take("other home", calls=1, ceiling=50)
    ledger.settle_orphans("h", {block.block: Shown(30, 100)})
    assert ledger.spent() == Spent(30 + 100 + other.ceiling, 4 + 1)
    ledger.settle(block, calls=2, cost=30)  # a zombie's settlement comes too late
    assert ledger.spent() == Spent(180, 5)


def test_a_compaction_keeps_sums_and_open_blocks(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(max_cost=1000, max_calls=None))
    blocks = [ledger.take("h", calls=2, ceiling=10) for _ in range(5)]
    for block in blocks[:3]:
        ledger.settle(block, calls=1, cost=7)
    before = ledger.spent()
    for _ in range(2):
        ledger.compact()
        assert ledger.spent() == Ledger(folder_store, Caps(None, None)).spent() == before
        ledger.settle(blocks[0], calls=0, cost=0)
    ledger.settle(blocks[3], calls=0, cost=0)
    ledger.compact()
    assert ledger.spent() == Spent(3 * 7 + 20, 3 + 2)


@settings(max_examples=150)
@given(order=st.randoms(use_true_random=False), cap=st.integers(0, 300), max_calls=st.integers(0, 30))
def test_the_budget_is_never_overspent(order: random.Random, cap: int, max_calls: int) -> None:
    """Workers die anywhere, their successors go on, the ledger is compacted meanwhile; what was sent is counted."""
    store = MemoryStore()
    schedule = Schedule(store, order.randrange)
    caps = Caps(cap, max_calls)
    sent_cost = sent_calls = 0
    journals: list[dict[str, Shown]] = [{}, {}]

    def worker(home: int) -> Callable[[], None]:
        def work() -> None:
            nonlocal sent_cost, sent_calls
            ledger = Ledger(store, caps)
            ledger.settle_orphans(str(home), journals[home])
            while True:
                ceiling = order.randrange(1, 20)
                try:
                    block = ledger.take(str(home), calls=order.randrange(1, 5), ceiling=ceiling)
                except BudgetError:
                    return
                cost, calls = 0, order.randrange(block.calls + 1)
                for _ in range(calls):
                    price = order.randrange(ceiling + 1)
                    cost, sent_cost, sent_calls = cost + price, sent_cost + price, sent_calls + 1
                    assert sent_cost <= cap
                    assert sent_calls <= max_calls
                    schedule.pause()
                    known = journals[home].get(block.block, Shown())
                    journals[home][block.block] = Shown(known.cost + price, known.ceiling + ceiling)
                    schedule.pause()
                ledger.settle(block, calls=calls, cost=cost)
                if order.random() < 0.3:
                    ledger.compact()

        return work

    for _ in range(3):  # lives of each home's worker
        schedule.run([worker(0), worker(1)], kill=lambda actor: order.random() < 0.03)
        spent = Ledger(store, caps).spent()
        assert sent_cost <= spent.cost <= cap
        assert sent_calls <= spent.calls <= max_calls


def test_a_long_ledger_is_folded_and_a_short_one_left(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(None, None))
    for _ in range(2):
        ledger.settle(ledger.take("h", calls=2, ceiling=5), calls=1, cost=3)
    open_block = ledger.take("h", calls=2, ceiling=5)
    ledger.fold()
    assert len(Log(folder_store, keys.BUDGET_LOG).read()) == 5
    for _ in range(130):
        ledger.settle(ledger.take("h", calls=2, ceiling=5), calls=1, cost=3)
    ledger.fold()
    assert len(Log(folder_store, keys.BUDGET_LOG).read()) == 2  # a total, and the open block
    assert Ledger(folder_store, Caps(None, None)).spent() == ledger.spent()
    ledger.settle(open_block, calls=0, cost=0)
    assert ledger.spent() == Spent(cost=132 * 3, calls=132)
