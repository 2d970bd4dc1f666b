"""How the simulated models fail: which request, in which way, and what a spoiled reply looks like.

Faults are drawn from (seed, request, attempt), so that the same request fares better another time, and a run against
the same server fails in the same places. A refusal belongs to what is asked: it is drawn from (seed, unit).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.simulator.config import FAULTS, Fault, Faults
from taskgalaxy_ops.simulator.wire import REPLIES, UNLISTED, Asked, Unit, encode

SPOILT: tuple[Fault, ...] = ("malformed", "truncated", "duplicated")  # those of a reply's text

RefusalForm = Literal["refusal", "content_filter", "error"]
_REFUSAL_FORMS: tuple[RefusalForm, ...] = ("refusal", "content_filter", "error")


def drawn(faults: Faults, seed: int, request: str, attempt: int) -> Fault | None:
    """The fault of this attempt at a request; None for most."""
    chance = draw(seed, "fault", request, attempt)
    for fault in FAULTS:
        chance -= getattr(faults, fault)
        if chance < 0:
            return fault
    return None


def refused(faults: Faults, seed: int, units: Sequence[Unit]) -> tuple[Unit, RefusalForm] | None:
    """The first unit that is refused, and how: in the message, by finish_reason, or as an error 400."""
    for unit in units:
        if draw(seed, "refusal", unit.key) < faults.refusal:
            return unit, _REFUSAL_FORMS[int(draw(seed, "refusal form", unit.key) * len(_REFUSAL_FORMS))]
    return None


class Start:
    """The beginning of a server's life, in which it is slow or refuses; ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.again()

    def again(self) -> None:
        """It starts now."""
        self._at = self._clock()

    def delay(self, faults: Faults) -> float | None:
        """Seconds that a reply takes longer now; None: there is none, but a 503."""
        starting = self._clock() - self._at < faults.slow_start
        return faults.slow_start_latency if starting else 0.0


def malformed(asked: Asked, entries: Sequence[Any], seed: int, attempt: int) -> tuple[str, set[str]]:
    """A spoiled reply, and the units of which a valid answer is left in it."""
    place = (seed, "malformed", asked.key, attempt)
    name = REPLIES[asked.stage]
    ways = ["prose", "field", "torn", "list"]
    if asked.stage not in UNLISTED:
        ways += ["missing", "twice", "type"]
    way = ways[int(draw(*place, "way") * len(ways))]
    at = int(draw(*place, "at") * len(entries))
    whole = encode({name: entries})
    match way:
        case "prose":
            return "Sure! I looked at each of them, and this is what I found.", set()
        case "field":
            return encode({"results": {"done": len(entries)}}), set()
        case "torn":
            torn = whole[: -2 - int(draw(*place, "cut") * len(whole) / 2)]
            return torn, whole_in(torn, asked, entries)
        case "list":
            return encode({name: f"{len(entries)} of them"}), set()
    spoiled = list(entries)
    if way == "missing":
        del spoiled[at]
    elif way == "twice":
        spoiled.insert(at, spoiled[at])
    else:
        spoiled[at] = {field: value if field == "index" else [value] for field, value in entries[at].items()}
    return encode({name: spoiled}), {unit.key for place, unit in enumerate(asked.units) if place != at}


def whole_in(text: str, asked: Asked, entries: Sequence[Any]) -> set[str]:
    """The units whose entries are whole in the beginning of a reply; of one that is a single unit, none."""
    if asked.stage in UNLISTED:
        return set()
    name = REPLIES[asked.stage]
    ends = (len(encode({name: entries[: n + 1]})) - len("]}") for n in range(len(entries)))
    return {unit.key for unit, end in zip(asked.units, ends, strict=True) if end <= len(text)}


def duplicated(asked: Asked, entries: Sequence[Any]) -> tuple[str, set[str]]:
    """A reply that says everything twice, and the units of which it leaves a valid answer: none where each has one."""
    text = encode({REPLIES[asked.stage]: [*entries, *entries]})
    return text, {unit.key for unit in asked.units} if asked.stage in UNLISTED else set()


def cut(text: str, seed: int, request: str, attempt: int) -> str:
    """The beginning of a reply, as a model's that ran out of tokens."""
    return text[: int(len(text) * (0.2 + 0.7 * draw(seed, "cut", request, attempt)))]
