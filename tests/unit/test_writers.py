"""The simulation of many writers, in small: what it checks holds, and its checks see what goes wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.writers import Plan, simulate

SMALL = Plan(writers=6, seconds=12.0, calls_a_home=40, killed=2, lease_seconds=6.0)


@pytest.mark.parametrize("seed", range(3))
def test_writers_that_die_lose_and_overspend_nothing(seed: int) -> None:
    outcome = simulate(replace(SMALL, seed=seed))
    assert outcome.homes > SMALL.writers
    assert outcome.given_up == 0


def test_a_run_is_the_same_each_time() -> None:
    assert simulate(SMALL) == simulate(SMALL)
