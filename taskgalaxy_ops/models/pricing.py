"""What calls cost, in whole nano-dollars (1e-9 USD), and the most that one may come to before it is sent.

A price is the settings' own; nothing for simulated models and those at an address of one's own; else the one that the
library `genai-prices` has for the model at its URL (the list comes with the package: nothing is fetched). A model that
has none is not asked while a budget counts money: it would count as free.
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
    """What a call comes to, or may come to at most."""

    cost: int  # nano-dollars
    tokens: int

    def factors(self, record_actual: Amount, least: tuple[float, float]) -> tuple[float, float]:
        """How many times this much a call came to, by cost and tokens; not less than ``least``."""
        cost, tokens = (
            max(each, got / held if held else 1.0) for got, held, each in zip(record_actual, self, least, strict=True)
        )
        return cost, tokens

    def times(self, factors: tuple[float, float]) -> Amount:
        """So many times this much, rounded up."""
        return Amount(math.ceil(self.cost * factors[0]), math.ceil(self.tokens * factors[1]))


def price_of(model: Model) -> Price | None:
    """What a model costs; None where nobody knows."""
    if model.price is not None:
        return model.price
    if model.simulated or _own(model.base_url):
        return FREE
    return _listed(model.model, model.base_url)


def priced(model: Model, *, money: bool) -> Price:
    """The same. ``money``: a budget counts it, so that an unknown price is a ModelError; else it counts as nothing."""
    price = price_of(model)
    if price is None and money:
        raise ModelError(unpriced(model) + " Or lift the budget's caps on money (max_cost: null).")
    return price or FREE


def unpriced(model: Model) -> str:
    """What to do about a model without a price."""
    return (
        f"model {model.name!r}: what {model.model!r} costs at {model.base_url} is not known. Set its `price` in the "
        "settings, e.g. `price: {input: 2.5, output: 10}` (USD a million tokens; zeros for one that is free)."
    )


@cache
def _own(base_url: str) -> bool:
    """Whether a URL's host is this machine, a private address, or a name that only a network of one's own knows."""
    host = urlsplit(base_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_OWN_SUFFIXES) or ".svc." in host
    return address.is_private or address.is_loopback or address.is_link_local


@cache
def _listed(name: str, base_url: str) -> Price | None:
    from genai_prices.data_snapshot import get_snapshot  # a third of a second: loaded where a price is looked up

    try:
        _, found = get_snapshot().find_provider_model(name, None, None, base_url)
    except LookupError:
        return None
    listed = found.get_prices(datetime.now(UTC))
    given, asked, again = (
        _rate(getattr(listed, rate, None)) for rate in ("input_mtok", "output_mtok", "cache_read_mtok")
    )
    return None if given is None or asked is None else Price(input=given, output=asked, cached=again)


def _rate(rate: Any) -> float | None:
    """A rate of the list. Of one in tiers the first: the next ones begin far above what is sent about one image."""
    rate = getattr(rate, "base", rate)
    return None if rate is None else float(rate)


def usage_of(data: Mapping[str, Any]) -> dict[str, int]:
    """The tokens that a reply says it took, by name; what it does not say is left out.

    ``completion_tokens`` are those that are billed as output, reasoning included: where a provider leaves that out of
    them, the total tells. ``cached_tokens`` are part of ``prompt_tokens``, as the tokens of images are;
    ``reasoning_tokens`` are part of ``completion_tokens``.
    """
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return {}
    found = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if _counts(usage.get(name))}
    if len(found) < 2:
        return found
    if _counts(usage.get("total_tokens")):
        found["completion_tokens"] = max(found["completion_tokens"], usage["total_tokens"] - found["prompt_tokens"])
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens") or usage.get("prompt_cache_hit_tokens")
    if _counts(cached) and cached:
        found["cached_tokens"] = min(cached, found["prompt_tokens"])
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    if _counts(reasoning) and reasoning:
        found["reasoning_tokens"] = min(reasoning, found["completion_tokens"])
    return found


def is_told(usage: Mapping[str, int]) -> bool:
    """Whether a usage tells all that is billed."""
    return usage.keys() >= {"prompt_tokens", "completion_tokens"}


def tokens(usage: Mapping[str, int]) -> int:
    """What a usage counts in all: cached and reasoning tokens are among the others."""
    return usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _detail(usage: Mapping[str, Any], part: str, name: str) -> Any:
    details = usage.get(part)
    return details.get(name) if isinstance(details, dict) else None


def cost(usage: Mapping[str, int], price: Price, *, batch: bool = False) -> int:
    """Nano-dollars of a usage; USD a million tokens is 1,000 nano-dollars a token. ``batch``: at a batch's discount."""
    cached = 0 if price.cached is None else usage.get("cached_tokens", 0)
    dollars = (
        (usage.get("prompt_tokens", 0) - cached) * price.input
        + cached * (price.cached or 0.0)
        + usage.get("completion_tokens", 0) * price.output
    )
    return round(dollars * 1000 * (1 - price.batch_discount if batch else 1))


def charged(usage: Mapping[str, int], price: Price, most: Amount, *, batch: bool = False) -> Amount:
    """What a reply counts: by its usage, or at the most that it may have come to where it does not tell all of it."""
    return Amount(cost(usage, price, batch=batch), tokens(usage)) if is_told(usage) else most


def at_most(arguments: Mapping[str, Any], model: Model, room: int, price: Price, *, batch: bool = False) -> Amount:
    """The most that a request can come to: a token a byte of text, an image as `image_tokens` reckons, all the room."""
    shown = 0
    for message in arguments["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else [message["content"]]:
            if isinstance(part, str):
                shown += len(part.encode())
            elif part["type"] == "text":
                shown += len(part["text"].encode())
            else:
                shown += image_tokens(model)
    usage = {"prompt_tokens": shown, "completion_tokens": room}
    return Amount(cost(usage, price, batch=batch), shown + room)


def image_tokens(model: Model) -> int:
    """The most tokens that an image is billed at, as it is sent: the rules of families that count more than others.

    The rules are the providers' own (OpenAI's guide to images and vision; InternVL 2's dynamic tiles of 256 tokens, at
    most twelve and a thumbnail). Elsewhere twice GPT-4o's tiles, which covers a token for each 28 x 28 pixels too.
    """
    name, side = model.model.lower(), model.image_side
    tiles, patches = math.ceil(side / 512) ** 2, min(1536, math.ceil(side / 32) ** 2)
    most = 2 * (85 + 170 * tiles)
    if "gpt-4o-mini" in name:
        return 2833 + 5667 * tiles
    if any(family in name for family in ("gpt-4.1-", "gpt-5-", "o4-mini")):  # the small ones: patches, times a factor
        return max(most, math.ceil(2.46 * patches))
    return max(most, 13 * 256) if "internvl" in name else most
