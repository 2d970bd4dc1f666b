"""The library against its servers' faults and its own death: nothing is lost, nothing kept is paid for twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chaos.between import Fault
from chaos.cases import Case, Universe, Worker, advises
from chaos.table import Outcome, Table
from taskgalaxy_ops.release.publish import Published

AT_ONCE = 12  # cases: most of their time is waiting for a dead worker's lease
STORE = frozenset({"list", "page", "get", "put", "delete", "head", "bucket"})
LISTS = frozenset({"list", "page"})
MODEL = frozenset({"model"})
WRITES = frozenset({"put", "delete", "batch"})
GROUP = "library"

# Faults that pass, by the table's words, and what more their workers are told.
PASSING: Mapping[str, tuple[Fault, dict[str, Any]]] = {
    "store: a delay of 4 s": (Fault("slow", 0, STORE), {}),
    "store: a connection reset": (Fault("reset", 0, STORE), {}),
    "store: a 500": (Fault("500", 0, STORE), {}),
    "store: a 503": (Fault("503", 0, STORE), {}),
    "store: a body cut": (Fault("cut", 0, LISTS | {"get"}), {}),
    "store: a listing's page lost": (Fault("lost", 0, frozenset({"page"})), {"page": 1}),
    # Slow models: it takes a lease's renewals for anything to be deleted.
    "store: a deletion's reply lost": (Fault("lost", 0, frozenset({"delete"})), {"latency": 2.5}),
    "model: a connection reset": (Fault("reset", 0, MODEL), {}),
    "model: a 500": (Fault("500", 0, MODEL), {}),
    "model: a reply later than the time-out": (Fault("slow", 0, MODEL, seconds=13), {}),
    "model: a reply lost": (Fault("lost", 0, MODEL), {}),
    "model: a reply cut": (Fault("cut", 0, MODEL), {}),
    "model: a malformed reply": (Fault("malformed", 0, MODEL), {}),
    "model: a reply with each entry twice": (Fault("doubled", 0, MODEL), {}),
    "model: a request served twice": (Fault("twice", 0, MODEL), {}),
}
SAMPLE = "store: a 500"  # make test tries this one
# Faults that last.
LASTING: Mapping[str, Fault] = {
    "store: 503 for good": Fault("503", 0, STORE, lasting=True),
    "store: gone for good": Fault("reset", 0, STORE, lasting=True),
    "store: no reply for good": Fault("hang", 0, STORE, lasting=True),
    "model: dead for good": Fault("reset", 0, MODEL, lasting=True),
    "model: 500 for good": Fault("500", 0, MODEL, lasting=True),
    "model: no reply for good": Fault("hang", 0, MODEL, lasting=True),
}


ON_REQUEST = pytest.mark.chaos  # conftest.py skips these where only a sample is asked for


class Sweep:
    """Runs cases side by side; all of them, whatever fails, and then says what did."""

    def __init__(self, universe: Universe, expected: Published, table: Table) -> None:
        self._universe, self._expected, self._table = universe, expected, table

    def __call__(self, fault: str, cases: Iterable[tuple[int, Callable[[Case], Worker | None]]], **case: Any) -> int:
        """How many cases the fault struck. ``cases``: number and what is done to the first workers of a case."""
        numbered = list(cases)

        def one(number: int, spoil: Callable[[Case], Worker | None]) -> str:
            each = Case(self._universe, f"{fault.replace(':', '')} {number}", **case)
            try:
                return "" if self._one(fault, each, spoil) else "missed"
            except AssertionError as error:
                return f"{fault}, operation {number}: {error}"

        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(pool.map(lambda pair: one(*pair), numbered))
        wrong = [each for each in said if each not in {"", "missed"}]
        assert not wrong, f"{len(wrong)} of {len(said)} cases:\n" + "\n".join(wrong)
        return said.count("")

    def _one(self, fault: str, case: Case, spoil: Callable[[Case], Worker | None]) -> bool:
        began = time.monotonic()
        worker = spoil(case)
        if worker is None:
            return False
        kept = case.kept()
        for each in case.workers:
            case.allow(each, kept)
        case.finish(self._expected)
        seconds = time.monotonic() - began if worker.code == -9 else worker.seconds
        lost = len(kept - case.kept())
        struck = worker.between.struck
        stage = struck.stage if struck else worker.between.stage if worker.code else "all"
        self._table.add(Outcome(GROUP, fault, stage, lost, sum(case.paid_twice().values()), seconds))
        return True


@pytest.fixture
def sweep(universe: Universe, expected: Published, table: Table) -> Sweep:
    return Sweep(universe, expected, table)


def spoiled(fault: Fault, codes: set[int], **orders: Any) -> Callable[[Case], Worker | None]:
    """One worker that meets the fault, and must end with one of these codes; None where the fault did not come."""

    def spoil(case: Case) -> Worker | None:
        with case.worker(fault, **orders) as worker:
            code = worker.wait()
        if worker.between.struck is None:
            assert code == 0, worker.said
            return None
        assert code in codes, f"it ended with {code}:\n{worker.said}"
        if code > 0:
            advises(worker)
        return worker

    return spoil


def spoiled_by_nothing(**orders: Any) -> Callable[[Case], Worker]:
    """One worker, which must not mind what it is told."""

    def spoil(case: Case) -> Worker:
        with case.worker(**orders) as worker:
            assert worker.wait() == 0, worker.said
        return worker

    return spoil


def no_room(size: int) -> Callable[[Case], Worker]:
    """One worker, of whose files none can grow beyond ``size`` bytes."""

    def spoil(case: Case) -> Worker:
        with case.worker(room=size) as worker:
            code = worker.wait()
        assert code in {0, 1}, f"it ended with {code}:\n{worker.said}"
        if code:
            advises(worker)
        return worker

    return spoil


def at(fault: Fault, number: int) -> Fault:
    return replace(fault, first=number)


def numbers(count: int, whole: bool, sample: int, name: str) -> Sequence[int]:
    """1 to ``count``, or a seeded sample of them."""
    every = range(1, count + 1)
    return every if whole else sorted(random.Random(name).sample(every, min(sample, count)))


def count(case: Case, kinds: frozenset[str]) -> int:
    operations = case.workers[0].between.operations
    return sum(not kinds or operation.kind in kinds for operation in operations)


def test_a_kill_at_any_operation(undisturbed: Case, sweep: Sweep, whole: bool) -> None:
    """The operation was served, and the worker does not live to know."""
    killed = Fault("kill", 0)
    chosen = numbers(count(undisturbed, frozenset()), whole, 4, "kill")
    struck = sweep("worker: kill -9", [(n, spoiled(at(killed, n), {-9})) for n in chosen])
    assert struck >= len(chosen) / 2  # runs differ by some operations


@ON_REQUEST
def test_a_kill_costs_what_was_in_flight_or_just_replied(undisturbed: Case, sweep: Sweep) -> None:
    """Slow models, one request at a time: at the kill, all replies of a model but its last two are in the journal."""

    def spoil(number: int) -> Callable[[Case], Worker | None]:
        def die(case: Case) -> Worker | None:
            with case.worker(Fault("kill", number, MODEL), latency=2.5) as worker:
                if worker.wait() == 0:
                    return None
            kept = case.kept()
            for name in {operation.model for operation in worker.between.paid()}:
                replies = [operation.reply for operation in worker.between.paid() if operation.model == name]
                assert set(replies[:-2]) <= kept, f"{name}: a reply two requests old was not kept"
            return worker

        return die

    chosen = range(1, count(undisturbed, MODEL) + 1)
    slow = [(n, spoil(n)) for n in chosen]
    assert sweep("worker: kill -9, slow models", slow, model={"concurrency": 1}) >= len(chosen) / 2


def test_a_kill_at_any_write_of_a_run_by_batch(universe: Universe, sweep: Sweep, whole: bool) -> None:
    """The store's, and the provider's: uploads, batches made, files deleted. No unit is submitted twice."""
    model = {"mode": "batch"}
    undisturbed = Case(universe, "undisturbed, by batch", model=model)
    with undisturbed.worker() as worker:
        assert worker.wait() == 0, worker.said
    writes = [operation for operation in worker.between.operations if operation.kind in WRITES]
    asking = [n for n, operation in enumerate(writes, 1) if operation.stage in {"filter", "write", "vote"}]
    killed, chosen = Fault("kill", 0, WRITES), asking if whole else random.Random("batch").sample(asking, 3)
    struck = sweep("worker: kill -9, by batch", [(n, spoiled(at(killed, n), {-9})) for n in chosen], model=model)
    assert struck >= len(chosen) / 2  # runs differ by some operations


@ON_REQUEST
def test_a_kill_while_a_folder_is_written(sweep: Sweep) -> None:
    def spoil(number: int) -> Callable[[Case], Worker | None]:
        def die(case: Case) -> Worker | None:
            with case.worker(synced=number) as worker:
                code = worker.wait()
            assert code in {-9, 0}, worker.said
            return worker if code else None

        return die

    chosen = numbers(160, False, 16, "fsync")
    assert sweep("worker: kill -9, store in a folder", [(n, spoil(n)) for n in chosen], in_folder=True) >= 8


def test_a_lost_reply_to_any_put(undisturbed: Case, sweep: Sweep, whole: bool) -> None:
    lost = Fault("lost", 0, frozenset({"put"}))
    chosen = numbers(count(undisturbed, lost.kinds), whole, 2, "put")
    struck = sweep("store: a put's reply lost", [(n, spoiled(at(lost, n), {0})) for n in chosen])
    assert struck >= len(chosen) / 2  # runs differ by some operations


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == SAMPLE else ON_REQUEST) for name in PASSING])
def test_faults_that_pass_are_ridden_out(
    name: str, universe: Universe, undisturbed: Case, sweep: Sweep, whole: bool
) -> None:
    fault, orders = PASSING[name]
    first = undisturbed
    if orders:
        first = Case(universe, f"{name.replace(':', '')} undisturbed")
        with first.worker(**orders) as worker:
            assert worker.wait() == 0, worker.said
    chosen = numbers(count(first, fault.kinds), False, 5 if whole else 1, name)
    more = {"model": {"timeout_seconds": 10}} if fault.seconds > 10 else {}
    struck = sweep(name, [(n, spoiled(at(fault, n), {0}, **orders)) for n in chosen], **more)
    assert struck >= len(chosen) / 2


@ON_REQUEST
@pytest.mark.parametrize("name", LASTING)
def test_faults_that_last_end_in_advice(name: str, undisturbed: Case, sweep: Sweep) -> None:
    fault = LASTING[name]
    chosen = numbers(count(undisturbed, fault.kinds), False, 4, name)
    more = {"model": {"timeout_seconds": 5, "retries": 3, "patience_seconds": 30}} if fault.kinds == MODEL else {}
    struck = sweep(name, [(n, spoiled(at(fault, n), {1, 3})) for n in chosen], **more)
    assert struck >= len(chosen) / 2


@ON_REQUEST
def test_two_workers_at_once(sweep: Sweep) -> None:
    def spoil(delay: float) -> Callable[[Case], Worker]:
        def both(case: Case) -> Worker:
            with case.worker() as one:
                time.sleep(delay)
                with case.worker() as other:
                    for worker in (one, other):
                        assert worker.wait() == 0, worker.said
            assert not case.paid_twice(), "two workers paid for the same"
            return one

        return both

    tenths = random.Random("two").sample(range(30), 8)
    assert sweep("two workers at once", [(n, spoil(n / 10)) for n in tenths]) == len(tenths)


def test_a_zombie_that_wakes_after_its_lease_was_taken(undisturbed: Case, sweep: Sweep, whole: bool) -> None:
    """It was stopped at its n-th operation; another has waited for its lease and finished when it wakes."""

    def spoil(number: int) -> Callable[[Case], Worker | None]:
        def sleep(case: Case) -> Worker | None:
            with case.worker(Fault("stop", number)) as zombie:
                asleep = zombie.between.stopped.wait(60)
                kept = case.kept()
                with case.worker() as other:
                    assert other.wait() == 0, other.said
                case.allow(zombie, kept)
                sent = len(zombie.between.paid())
                zombie.go_on()
                code = zombie.wait()
            assert code in {0, 3}, f"it ended with {code}:\n{zombie.said}"
            if code:
                advises(zombie)
            assert len(zombie.between.paid()) == sent, "it asked when it woke"
            return zombie if asleep else None

        return sleep

    chosen = numbers(count(undisturbed, frozenset()), False, 16 if whole else 1, "zombie")
    assert sweep("worker: stopped, and woken when another had its lease", [(n, spoil(n)) for n in chosen])


@ON_REQUEST
def test_workers_whose_clocks_are_apart(sweep: Sweep) -> None:
    """In a folder by two hours; in S3 by as much as signatures allow, beyond which the error names the clock."""

    def spoil(clocks: tuple[float, float]) -> Callable[[Case], Worker]:
        def apart(case: Case) -> Worker:
            with case.worker(clock=clocks[0]) as one, case.worker(clock=clocks[1]) as other:
                for worker in (one, other):
                    assert worker.wait() == 0, worker.said
            assert not case.paid_twice(), "two workers paid for the same"
            return one

        return apart

    def refused(case: Case) -> Worker:
        with case.worker(clock=3600) as worker:
            assert worker.wait() == 1, worker.said
        assert "set this machine's clock" in worker.said, worker.said
        return worker

    runs = range(4)
    sweep("two workers at once, clocks 14 minutes fast and slow", [(n, spoil((840, -840))) for n in runs])
    apart = [(n, spoil((3600, -3600))) for n in runs]
    sweep("two workers at once, clocks an hour fast and slow, store in a folder", apart, in_folder=True)
    sweep("a clock an hour fast", [(0, refused)])


@ON_REQUEST
def test_a_full_disk(sweep: Sweep) -> None:
    """No file can grow beyond so many bytes. A store in S3 needs no disk; one in a folder ends with advice."""
    sizes = (0, 100, 1000, 1500, 2500, 4000)
    sweep("disk full, store in a folder", [(size, no_room(size)) for size in sizes], in_folder=True)
    sweep("disk full under TMPDIR", [(0, spoiled_by_nothing(room=0))])
