"""The budget's ledger: never overspent, whoever dies when."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import MemoryStore, Schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.errors import BudgetError
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage import ledger as budget_module
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import NANO, Caps, JournaledCalls, Ledger, Scopes, Spent
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
    assert [ledger.take("h", calls=9, ceiling=10).ceiling for _ in range(2)] == [10, 10]
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
    ledger.settle_orphans("h", {block.block: JournaledCalls(cost=30, calls=2)})
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
    journals: list[dict[str, JournaledCalls]] = [{}, {}]

    def worker(shard: int) -> Callable[[], None]:
        def work() -> None:
            nonlocal sent_cost, sent_calls
            ledger = Ledger(store, caps)
            ledger.settle_orphans(str(shard), journals[shard])
            while True:
                ceiling = order.randrange(1, 20)
                try:
                    block = ledger.take(str(shard), calls=order.randrange(1, 5), ceiling=ceiling)
                except BudgetError:
                    return
                cost = calls = 0
                for _ in range(order.randrange(block.calls + 1)):
                    if block.ceiling - cost < ceiling:
                        break
                    price, calls = order.randrange(ceiling + 1), calls + 1
                    cost, sent_cost, sent_calls = cost + price, sent_cost + price, sent_calls + 1
                    assert sent_cost <= cap
                    assert sent_calls <= max_calls
                    schedule.pause()
                    known = journals[shard].get(block.block, JournaledCalls())
                    journals[shard][block.block] = JournaledCalls(known.cost + price, calls=known.calls + 1)
                    schedule.pause()
                ledger.settle(block, calls=calls, cost=cost)
                if order.random() < 0.3:
                    ledger.compact()

        return work

    for _ in range(3):  # lives of each image shard's worker
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


# Caps of a part: a run, a day, a source


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ledger's day, which a test may turn."""
    now = ["2026-11-26"]
    monkeypatch.setattr(budget_module, "today", lambda: now[0])
    return now


def left(ledger: Ledger, source: str = "") -> int:
    """How many calls a ledger still gives."""
    given = 0
    while True:
        try:
            block = ledger.take("h", calls=1, ceiling=10, tokens=100, source=source)
        except BudgetError:
            return given
        given += 1
        ledger.settle(block, calls=1, cost=10, tokens=100)


def test_tokens_are_a_budget_too(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(max_tokens=450))
    assert left(ledger) == 4
    assert ledger.spent() == Spent(40, 4, 400)
    with pytest.raises(BudgetError, match=r"400 tokens of 450 \(budget.max_tokens\).*take 100 tokens.*raise the cap"):
        ledger.take("h", calls=1, ceiling=10, tokens=100)
    assert ledger.take("h", calls=1, ceiling=10, tokens=50).tokens == 50


def test_a_run_has_a_budget_of_its_own(folder_store: Store) -> None:
    runs = [Ledger(folder_store, Caps(max_calls=5), Scopes(run, of_run=Caps(max_calls=3))) for run in "ab"]
    assert [left(run) for run in runs] == [3, 2]
    assert runs[1].spent(("run", "a")) == Spent(30, 3, 300)
    with pytest.raises(BudgetError, match=r"5 calls of 5 \(budget.max_calls\); 3 calls of 3 \(budget.run.max_calls\)"):
        runs[0].take("h", calls=1, ceiling=10)


def test_a_day_has_a_budget_and_the_next_one_its_own(folder_store: Store, day: list[str]) -> None:
    ledger = Ledger(folder_store, Caps(), Scopes(of_day=Caps(max_cost=35)))
    assert left(ledger) == 3
    with pytest.raises(
        BudgetError, match=r"\(budget.day.max_cost\).*raise the cap \(budget.day\), or wait for tomorrow"
    ):
        ledger.take("h", calls=1, ceiling=10)
    day[0] = "2026-11-27"
    assert left(ledger) == 3
    assert ledger.spent(("day", "2026-11-26")) == ledger.spent(("day", "2026-11-27")) == Spent(30, 3, 300)


def test_a_source_has_a_budget_and_others_go_on(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(max_calls=9), Scopes(of_source={"scans": Caps(max_cost=20), "web": Caps()}))
    assert left(ledger, "scans") == 2
    with pytest.raises(
        BudgetError, match=r"\$0.0000 of \$0.00 \(budget.sources.scans.max_cost\).*\(budget.sources.scans\)"
    ):
        ledger.take("h", calls=1, ceiling=10, source="scans")
    assert left(ledger, "web") == 7
    assert ledger.spent(("source", "web")) == Spent(70, 7, 700)


def test_a_compaction_keeps_what_every_cap_needs(folder_store: Store, day: list[str]) -> None:
    def ledger(run: str) -> Ledger:
        scopes = Scopes(run, Caps(max_calls=4), Caps(max_calls=6), {"scans": Caps(max_calls=5)})
        return Ledger(folder_store, Caps(), scopes)

    for run in "ab":
        held = ledger(run).take("h", calls=1, ceiling=10, tokens=7, source="scans")
        ledger(run).settle(held, calls=1, cost=3, tokens=5)
    still = ledger("a").take("h", calls=1, ceiling=10, tokens=7, source="scans")
    every = [("lifetime", ""), ("run", "a"), ("run", "b"), ("day", day[0]), ("source", "scans")]
    before = {scope: ledger("").spent(scope) for scope in every}
    for _ in range(2):
        ledger("").compact()
        assert {scope: ledger("").spent(scope) for scope in every} == before
    ledger("a").settle(still, calls=0, cost=0)
    ledger("").compact()
    assert left(ledger("a"), "scans") == 3
    assert left(ledger("b"), "scans") == 0, "the source's five calls are made"
    assert left(ledger("b"), "web") == 1, "the day's six, too"
    day[0] = "2026-11-27"
    assert left(ledger("b"), "web") == 2, "a run's budget is over all its days"


def test_a_ledger_of_an_older_version_is_read(folder_store: Store) -> None:
    """Entries without day, run, source and tokens, an open block among them, as that version wrote them."""
    log = Log(folder_store, keys.BUDGET_LOG)
    log.append({"kind": "total", "calls": 10, "cost": 500})
    log.append({"kind": "take", "block": "b1", "home": "h", "calls": 4, "ceiling": 200})
    log.append({"kind": "take", "block": "b2", "home": "h", "calls": 2, "ceiling": 100})
    log.append({"kind": "settle", "block": "b2", "calls": 1, "cost": 20})
    ledger = Ledger(folder_store, Caps(max_calls=20), Scopes("r", of_run=Caps(max_calls=2)))
    assert ledger.spent() == Spent(500 + 200 + 20, 10 + 4 + 1)
    ledger.settle_orphans("h", {"b1": JournaledCalls(cost=30, ceiling=100, calls=2)})
    assert ledger.spent() == Spent(500 + 130 + 20, 10 + 4 + 1)
    assert left(ledger) == 2


def test_an_orphans_block_counts_what_one_call_may_hold_for_each_that_the_journal_does_not_show(
    folder_store: Store,
) -> None:
    """What calls did not come to served others of the block: so many of them may have been sent, not more."""
    ledger = Ledger(folder_store, Caps(max_cost=1000))
    block = ledger.take("h", calls=8, ceiling=100, tokens=10)
    assert (block.calls, block.ceiling, block.tokens) == (8, 100, 80)
    ledger.settle_orphans("h", {block.block: JournaledCalls(cost=60, calls=7, tokens=30)})
    assert ledger.spent() == Spent(100, 8, 40)


# Waiting for what others hold


def test_what_living_workers_hold_is_waited_for_and_what_dead_ones_hold_is_not(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(max_cost=100))
    with Lease(folder_store, "theirs"):
        theirs = [ledger.take("theirs", calls=1, ceiling=45) for _ in range(2)]
        with pytest.raises(BudgetError):
            ledger.take("mine", calls=1, ceiling=45)
        assert ledger.returning("mine", ceiling=45) == {block.block for block in theirs}
        assert ledger.returning("mine", ceiling=101) == set(), "that would not fit if all of it came back"
    assert ledger.returning("mine", ceiling=45) == set(), "their lease is gone: nobody gives it back"
    assert ledger.returning("mine", ceiling=45, mine=[theirs[0].block]) == {theirs[0].block}


def test_only_what_stands_in_the_way_is_waited_for(folder_store: Store) -> None:
    ledger = Ledger(folder_store, Caps(), Scopes(of_source={"scans": Caps(max_calls=1)}))
    done = ledger.take("h", calls=1, ceiling=1, source="scans")
    ledger.settle(done, calls=1, cost=1)
    other = ledger.take("h", calls=1, ceiling=1, source="web")
    assert ledger.returning("h", ceiling=1, source="scans", mine=[other.block]) == set()


def test_workers_of_several_processes_put_a_budget_to_use(folder_store: Store) -> None:
    """Each holds five times what a call comes to: nearly all is held, and who finds no room waits for the others."""
    typical, cap = 100, 60

    async def work(number: int) -> int:
        run_budget = RunBudget(Ledger(folder_store, Caps(max_cost=cap * typical)))
        shard_budget, sent = ShardBudget(run_budget, f"home {number}", 8), 0

        async def ask() -> None:
            nonlocal sent
            with contextlib.suppress(BudgetError):
                while True:
                    drawn = await shard_budget.draw(5 * typical)
                    sent += 1
                    await asyncio.sleep(0.01)
                    await shard_budget.back(drawn, typical)

        with await asyncio.to_thread(Lease, folder_store, f"home {number}"):
            await asyncio.gather(*(ask() for _ in range(4)))
            await shard_budget.close()
        return sent

    with ThreadPoolExecutor(3) as pool:
        sent = sum(pool.map(lambda number: asyncio.run(work(number)), range(3)))
    assert sent * typical == Ledger(folder_store, Caps()).spent().cost
    assert cap - 5 < sent <= cap


def test_what_is_spent_of_each_cap_is_told(folder_store: Store, day: list[str]) -> None:
    scopes = Scopes("r", Caps(max_calls=9), Caps(max_cost=NANO), {"scans": Caps(max_calls=5, max_tokens=900)})
    ledger = Ledger(folder_store, Caps(), scopes)
    ledger.settle(ledger.take("h", calls=1, ceiling=NANO // 2, source="scans"), calls=1, cost=NANO // 4, tokens=7)
    assert ledger.describe() == [
        "$0.2500 of $1.00 (budget.day.max_cost)",
        "1 calls of 5 (budget.sources.scans.max_calls)",
        "7 tokens of 900 (budget.sources.scans.max_tokens)",
    ]
