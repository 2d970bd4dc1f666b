"""What calls cost: prices of the settings, of the packaged list, of nobody; usage of every kind; the most of a call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.pricing import FREE, Amount
from taskgalaxy_ops.settings import Model, Price

OPENAI = "https://api.openai.com/v1"


def model(name: str = "gpt-4o", base_url: str = OPENAI, **fields: Any) -> Model:
    return Model(name="judge", model=name, base_url=base_url, **fields)


def test_a_price_is_the_settings_own_else_the_lists() -> None:
    assert pricing.price_of(model()) == Price(input=2.5, output=10, cached=1.25)
    assert pricing.price_of(model("gpt-4o-mini-2024-07-18")) == Price(input=0.15, output=0.6, cached=0.075)
    assert pricing.price_of(
        model("gemini-2.5-pro", "https://generativelanguage.googleapis.com/v1beta/openai/")
    ) == Price(input=1.25, output=10, cached=0.125)
    mine = Price(input=1, output=2)
    assert pricing.price_of(model(price=mine)) == mine
    assert pricing.price_of(model(price=Price())) == FREE, "zeros that somebody wrote are a price"


@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1/v1", "http://10.1.2.3/v1", "http://vllm:8000/v1",
     "https://192.168.0.7/v1", "http://gpu.lab.internal/v1", "http://judge.models.svc.cluster.local/v1"],
)  # fmt: skip
def test_models_of_ones_own_network_and_simulated_ones_are_free(base_url: str) -> None:
    assert pricing.price_of(model("anything", base_url)) == FREE
    assert pricing.price_of(model("anything", "https://elsewhere.example/v1", simulated=True)) == FREE


@pytest.mark.parametrize(
    ("name", "base_url"),
    [("gpt-4o", "https://gateway.example/v1"), ("none-such", OPENAI), ("gpt-4o", "https://8.8.8.8/v1")],
)
def test_a_model_that_nobody_prices_is_not_asked_for_money(name: str, base_url: str) -> None:
    unknown = model(name, base_url)
    assert pricing.price_of(unknown) is None
    assert pricing.priced(unknown, money=False) == FREE
    with pytest.raises(ModelError, match=rf"'judge': what '{name}' costs at .* Set its `price` in the settings"):
        pricing.priced(unknown, money=True)


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
         {"prompt_tokens": 9, "completion_tokens": 2}),
        (
            {"prompt_tokens": 9, "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 4},
             "completion_tokens_details": {"reasoning_tokens": 5}},
            {"prompt_tokens": 9, "completion_tokens": 6, "cached_tokens": 4, "reasoning_tokens": 5},
        ),
        # reasoning that is left out of the completion, and shows in the total alone
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 31,
             "completion_tokens_details": {"reasoning_tokens": 20}},
            {"prompt_tokens": 9, "completion_tokens": 22, "reasoning_tokens": 20},
        ),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 7},
         {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 7}),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 99}},
         {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 9}),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None, "completion_tokens_details": [1],
          "total_tokens": 3}, {"prompt_tokens": 9, "completion_tokens": 2}),
        ({"prompt_tokens": True, "completion_tokens": 2}, {"completion_tokens": 2}),
        ([], {}),
        (None, {}),
    ],
)  # fmt: skip
def test_usage_is_read_whoever_tells_it(usage: Any, found: dict[str, int]) -> None:
    assert pricing.usage_of({"usage": usage}) == found


def test_a_call_costs_whole_nano_dollars() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 400, "reasoning_tokens": 60}
    assert pricing.cost(usage, Price(input=2.5, output=10)) == 1000 * 2500 + 100 * 10_000
    assert pricing.cost(usage, Price(input=2.5, output=10, cached=1.25)) == 600 * 2500 + 400 * 1250 + 100 * 10_000
    assert pricing.cost(usage, Price(input=2.5, output=10), batch=True) == (1000 * 2500 + 100 * 10_000) // 2
    assert pricing.cost(usage, Price(input=2.5, output=10, batch_discount=0), batch=True) == 3_500_000
    assert pricing.cost({}, Price(input=2.5, output=10)) == 0


def test_what_does_not_tell_all_counts_at_the_most() -> None:
    most, price = Amount(99, 50), Price(input=1, output=1)
    assert pricing.charged({"prompt_tokens": 5}, price, most) == most
    assert pricing.charged({"prompt_tokens": 5, "completion_tokens": 2}, price, most) == Amount(7000, 7)


@given(
    text=st.text(max_size=300),
    side=st.integers(64, 4096),
    room=st.integers(16, 9000),
    cached=st.sampled_from([None, 0.5]),
    batch=st.booleans(),
)
def test_the_most_covers_whatever_a_model_takes(
    text: str, side: int, room: int, cached: float | None, batch: bool
) -> None:
    price, asked = Price(input=2.5, output=10, cached=cached), model("gpt-4o", image_side=side)
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "data:"}}]
    most = pricing.at_most({"messages": [{"role": "user", "content": content}]}, asked, room, price, batch=batch)
    taken = {"prompt_tokens": len(text.encode()) + 85 + 170 * 4, "completion_tokens": room, "cached_tokens": 7}
    if side <= 1024:  # GPT-4o scales larger ones down
        taken["prompt_tokens"] = len(text.encode()) + 85 + 170 * (-(-side // 512)) ** 2
    assert pricing.cost(taken, price, batch=batch) <= most.cost
    assert taken["prompt_tokens"] + room <= most.tokens


def test_families_that_count_more_for_an_image_are_held_at_their_own_rules() -> None:
    assert pricing.image_tokens(model("gpt-4o", image_side=1024)) == 2 * (85 + 170 * 4)
    assert pricing.image_tokens(model("gpt-4o-mini", image_side=1024)) == 2833 + 5667 * 4
    assert pricing.image_tokens(model("gpt-4.1-nano", image_side=1024)) == 2520
    assert pricing.image_tokens(model("OpenGVLab/InternVL2_5-8B", image_side=448)) == 13 * 256


@given(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), st.tuples(st.integers(0, 10**10), st.integers(0, 10**7))
)
def test_what_came_to_more_is_held_so_from_then_on(estimated: tuple[int, int], record_actual: tuple[int, int]) -> None:
    held = Amount(*estimated)
    more = held.times(held.factors(Amount(*record_actual), (1, 1)))
    for before, after, got in zip(held, more, record_actual, strict=True):
        assert after >= before
        assert after >= got * (1 - 1e-9) or before == 0
