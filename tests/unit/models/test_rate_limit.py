"""How many requests are let in: the width that a server's 429s leave, rates, headers, and a model that is away."""

import asyncio

import pytest

from taskgalaxy_ops.models import rate_limit
from taskgalaxy_ops.models.rate_limit import (
    FIRST_WIDTH,
    Limit,
    Rate,
    Unavailable,
    Width,
    until_there_is_room,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


# The width


def served_in_turn(width, allowed, calls):
    """A server that takes so many at once; the number of refusals until so many calls are served."""
    refused = done = 0
    while done < calls:
        sent = int(width)
        taken = min(sent, allowed)
        for _ in range(sent - taken):
            width.refused()
        for _ in range(taken):
            width.served()
        refused, done = refused + sent - taken, done + taken
    return refused


def test_without_refusals_the_width_becomes_what_is_allowed_at_most():
    width = Width(200)
    assert int(width) == FIRST_WIDTH
    assert served_in_turn(width, 1000, 1000) == 0
    assert int(width) == 200
    assert int(Width(3)) == 3


@pytest.mark.parametrize("allowed", [1, 2, 7, 16, 31, 64, 100])
def test_the_width_finds_what_a_server_takes_and_stays_there(allowed):
    width = Width(128)
    first = served_in_turn(width, allowed, 2000)
    later = served_in_turn(width, allowed, 10_000)
    assert int(width) in {allowed, allowed + 1}
    assert first <= 128
    assert later <= 10_000 * 0.01


def test_a_server_that_takes_more_again_is_sent_more():
    width = Width(128)
    served_in_turn(width, 10, 5000)
    served_in_turn(width, 100, 60_000)
    assert int(width) > 50


def test_a_slow_server_is_sent_less_and_never_nothing():
    width = Width(64)
    width.slowed()
    assert int(width) == int(FIRST_WIDTH * rate_limit.SLOWED)
    for _ in range(50):
        width.slowed()
    assert int(width) == 1


# Rates and headers


def test_a_rate_holds_a_second_and_lets_through_what_it_is():
    clock = Clock()
    rate = Rate(600, clock)
    let = 0
    for _ in range(1000):
        while rate.wait() == 0:
            rate.take()
            let += 1
        clock.now += 0.01
    assert 100 <= let <= 112, "ten a second for ten seconds, and what it held at first"
    rate.take(50)
    assert rate.wait() == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize(
    ("left", "reset", "seconds"),
    [("0", "60s", 1), ("0", "1m0s", 1), ("0", "6000ms", 0.1), ("0", "120", 2), ("3", "60s", 0), ("0", "soon", 0)],
)
def test_a_server_that_says_that_nothing_is_left_is_believed(left, reset, seconds):
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": left,
        "x-ratelimit-reset-requests": reset,
    }
    assert until_there_is_room(headers) == pytest.approx(seconds)


# Who is let in


@pytest.mark.parametrize("allowed", [None, 20])
def test_before_any_reply_more_and_more_are_let_in_until_one_is_refused(allowed):
    most = 40

    async def run():
        limit, sent = Limit(most), 0
        full = asyncio.Event()

        async def one():
            nonlocal sent
            await limit.enter()
            sent += 1
            if sent == most:
                full.set()
            if allowed and sent > allowed:
                limit.refused("busy", 0)
                limit.back()
                full.set()
            else:
                await asyncio.Event().wait()

        async with asyncio.timeout(30):
            tasks = [asyncio.create_task(one()) for _ in range(2 * most)]
            await asyncio.sleep(0)
            assert sent == FIRST_WIDTH
            await full.wait()
        for _ in range(10):
            await asyncio.sleep(2 * rate_limit.OPENING_SECONDS)
        for task in tasks:
            task.cancel()
        return sent, int(limit.width)

    assert asyncio.run(run()) == ((most, most) if allowed is None else (allowed + 1, allowed))


def test_retries_go_first_in_the_order_of_their_requests():
    async def run():
        limit, order = Limit(1), []

        async def one(name, again):
            await limit.enter(again)
            order.append(name)
            await asyncio.sleep(0)
            limit.back()

        await limit.enter()
        tasks = [asyncio.create_task(one(*each)) for each in (("new", 0), ("second", 9), ("first", 4), ("newer", 0))]
        await asyncio.sleep(0)
        limit.back()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["first", "second", "new", "newer"]


def test_one_that_is_cancelled_gives_its_turn_back():
    async def run():
        limit = Limit(1)
        await limit.enter()
        waiting = [asyncio.create_task(limit.enter()) for _ in range(2)]
        await asyncio.sleep(0)
        limit.back()  # lets the first one in, which is cancelled before it knows
        waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return limit.in_flight

    assert asyncio.run(run()) == 1


def test_a_model_that_is_away_is_left_alone_then_looked_at_by_one_then_given_up(monkeypatch):
    monkeypatch.setattr(rate_limit, "BACKOFF_SECONDS", 0.001)

    async def run():
        limit, most, tries = Limit(16, patience=0.05), 0, 0

        async def one():
            nonlocal most, tries
            while True:
                await limit.enter(1)
                tries += 1
                most = max(most, limit.in_flight if tries > 20 else 0)
                await asyncio.sleep(0)
                limit.failed("nobody there")
                limit.back()

        found = await asyncio.gather(*(one() for _ in range(40)), return_exceptions=True)
        return found, most, tries

    found, most, tries = asyncio.run(run())
    assert all(isinstance(each, Unavailable) and "nobody there" in str(each) for each in found)
    assert most == 1, "one looks at a time"
    assert tries <= 20 + 60, "those in flight say once that it is away"


def test_one_that_returns_is_used_again(monkeypatch):
    monkeypatch.setattr(rate_limit, "BACKOFF_SECONDS", 0.001)

    async def run():
        limit = Limit(16, patience=60)
        for _ in range(rate_limit.FAILURES_TO_OPEN + 1):
            await limit.enter()
            limit.failed("nobody there")
            limit.back()
        assert limit.closed
        await limit.enter()
        limit.worked()
        limit.back()
        return limit

    limit = asyncio.run(run())
    assert not limit.closed and limit.why == ""
