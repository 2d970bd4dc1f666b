"""The simulation of many writers, in small: what it checks holds, and its checks see what goes wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.writers import Plan, simulate
from taskgalaxy_ops.storage.leases import Lease

SMALL = Plan(writers=6, seconds=40.0, calls_a_shard=80, killed=1, frozen=2, lease_seconds=4.0)


@pytest.mark.parametrize("seed", range(3))
def test_writers_that_die_or_sleep_lose_and_overspend_nothing(seed: int) -> None:
    outcome = simulate(replace(SMALL, seed=seed))
    assert outcome.shards > SMALL.writers
    assert outcome.given_up == 0


def test_writers_that_go_on_past_their_lease_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "check", lambda lease: None)
    with pytest.raises(AssertionError, match="took turns"):
        simulate(SMALL)


def test_a_run_is_the_same_each_time() -> None:
    assert simulate(SMALL) == simulate(SMALL)
