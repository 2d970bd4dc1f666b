"""Computes what calls cost, in whole nano-dollars (1e-9 USD), and the most that a call can cost before it is sent.

A model's price is the first of these: the settings' price; nothing, for simulated models and models at a private
address; the price that the library `genai-prices` lists for the model at its URL (the list comes with the package:
nothing is fetched). While a budget limits money, a model without a price is sent nothing, since it would count as free.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.settings import Model, Price

FREE = Price()

_OWN_SUFFIXES = (".local", ".localhost", ".internal", ".lan", ".svc")


class Amount(NamedTuple):
    """What a call used, or the most that it can use."""

    cost: int  # nano-dollars
    tokens: int

    def factors(self, actual: Amount, least: tuple[float, float]) -> tuple[float, float]:
        """The factors by which a call's actual cost and tokens exceeded this amount; at least ``least``."""
        cost, tokens = (
            max(lowest, used / held if held else 1.0) for used, held, lowest in zip(actual, self, least, strict=True)
        )
        return cost, tokens

    def times(self, factors: tuple[float, float]) -> Amount:
        """This amount times the factors of cost and tokens, rounded up."""
        return Amount(math.ceil(self.cost * factors[0]), math.ceil(self.tokens * factors[1]))


def price_of(model: Model) -> Price | None:
    """A model's price; None if it is not known."""
    if model.price is not None:
        return model.price
    if model.simulated or _is_private(model.base_url):
        return FREE
    return _listed(model.model, model.base_url)


def priced(model: Model, *, money: bool) -> Price:
    """A model's price; an unknown one counts as nothing.

    ``money``: a budget limits money. Then an unknown price raises ModelError.
    """
    price = price_of(model)
    if price is None and money:
        raise ModelError(unpriced(model) + " Or lift the budget's caps on money (max_cost: null).")
    return price or FREE


def unpriced(model: Model) -> str:
    """A message that says how to give a price to a model without one."""
    return (
        f"model {model.name!r}: what {model.model!r} costs at {model.base_url} is not known. Set its `price` in the "
        "settings, e.g. `price: {input: 2.5, output: 10}` (USD a million tokens; zeros for one that is free)."
    )


@cache
def _is_private(base_url: str) -> bool:
    """Whether a URL's host is this machine, a private address, or a name that only a private network resolves."""
    host = urlsplit(base_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_OWN_SUFFIXES) or ".svc." in host
    return address.is_private or address.is_loopback or address.is_link_local


@cache
def _listed(name: str, base_url: str) -> Price | None:
    from genai_prices.data_snapshot import (
        get_snapshot,
    )  # the import takes a third of a second, so it happens only where a price is looked up

    try:
        _, entry = get_snapshot().find_provider_model(name, None, None, base_url)
    except LookupError:
        return None
    listed = entry.get_prices(datetime.now(UTC))
    input_rate, output_rate, cached_rate = (
        _rate(getattr(listed, rate, None)) for rate in ("input_mtok", "output_mtok", "cache_read_mtok")
    )
    return (
        None
        if input_rate is None or output_rate is None
        else Price(input=input_rate, output=output_rate, cached=cached_rate)
    )


def _rate(rate: Any) -> float | None:
    """A rate of the list in USD a million tokens; of a tiered rate, the first tier.

    The other tiers begin at far more tokens than a request about one image has.
    """
    rate = getattr(rate, "base", rate)
    return None if rate is None else float(rate)


def usage_of(data: Mapping[str, Any]) -> dict[str, int]:
    """The token counts that a reply states, by name; counts that it does not state are left out.

    ``completion_tokens`` are those that are billed as output, with reasoning: if a provider leaves reasoning out of
    them, they are computed from the total. ``cached_tokens`` and the tokens of images are part of ``prompt_tokens``;
    ``reasoning_tokens`` are part of ``completion_tokens``.
    """
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return {}
    counts = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if _counts(usage.get(name))}
    if len(counts) < 2:
        return counts
    if _counts(usage.get("total_tokens")):
        counts["completion_tokens"] = max(counts["completion_tokens"], usage["total_tokens"] - counts["prompt_tokens"])
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens") or usage.get("prompt_cache_hit_tokens")
    if _counts(cached) and cached:
        counts["cached_tokens"] = min(cached, counts["prompt_tokens"])
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    if _counts(reasoning) and reasoning:
        counts["reasoning_tokens"] = min(reasoning, counts["completion_tokens"])
    return counts


def is_told(usage: Mapping[str, int]) -> bool:
    """Whether a usage states all tokens that are billed."""
    return usage.keys() >= {"prompt_tokens", "completion_tokens"}


def tokens(usage: Mapping[str, int]) -> int:
    """All tokens of a usage. Cached and reasoning tokens are part of the two that are added."""
    return usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _detail(usage: Mapping[str, Any], part: str, name: str) -> Any:
    details = usage.get(part)
    return details.get(name) if isinstance(details, dict) else None


def cost(usage: Mapping[str, int], price: Price, *, batch: bool = False) -> int:
    """The cost of a usage in nano-dollars. ``batch``: with the discount on batches."""
    cached = 0 if price.cached is None else usage.get("cached_tokens", 0)
    dollars = (
        (usage.get("prompt_tokens", 0) - cached) * price.input
        + cached * (price.cached or 0.0)
        + usage.get("completion_tokens", 0) * price.output
    )
    # One USD a million tokens is 1,000 nano-dollars a token.
    return round(dollars * 1000 * (1 - price.batch_discount if batch else 1))


def charged(usage: Mapping[str, int], price: Price, most: Amount, *, batch: bool = False) -> Amount:
    """What a reply counts in the budget: the cost of its usage, or ``most`` if its usage is not complete."""
    return Amount(cost(usage, price, batch=batch), tokens(usage)) if is_told(usage) else most


def at_most(arguments: Mapping[str, Any], model: Model, room: int, price: Price, *, batch: bool = False) -> Amount:
    """The most that a request can use: a token for each byte of text, ``image_tokens`` for each image, all the room.

    ``arguments``: the body of a chat-completions request. ``room``: the most tokens of its reply.
    """
    prompt_tokens = 0
    for message in arguments["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else [message["content"]]:
            if isinstance(part, str):
                prompt_tokens += len(part.encode())
            elif part["type"] == "text":
                prompt_tokens += len(part["text"].encode())
            else:
                prompt_tokens += image_tokens(model)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": room}
    return Amount(cost(usage, price, batch=batch), prompt_tokens + room)


def image_tokens(model: Model) -> int:
    """The most tokens that an image of the settings' size is billed at.

    Families that count more than others have rules of their own, from their providers: OpenAI's guide to images and
    vision; InternVL 2's dynamic tiles of 256 tokens, at most twelve and a thumbnail. All others get twice GPT-4o's
    tiles, which also covers models that count a token for each 28 x 28 pixels.
    """
    name, side = model.model.lower(), model.image_side
    tiles, patches = math.ceil(side / 512) ** 2, min(1536, math.ceil(side / 32) ** 2)
    most = 2 * (85 + 170 * tiles)
    if "gpt-4o-mini" in name:
        return 2833 + 5667 * tiles
    if any(family in name for family in ("gpt-4.1-", "gpt-5-", "o4-mini")):  # small models: patches times a factor
        return max(most, math.ceil(2.46 * patches))
    return max(most, 13 * 256) if "internvl" in name else most
