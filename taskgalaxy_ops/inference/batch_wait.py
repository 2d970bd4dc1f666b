"""Waiting for an image shard's batches, under nobody's lease.

Which have not ended, until one has, and how that is told.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.models.batch_api import NoReplyError
from taskgalaxy_ops.settings import BatchSettings, Model
from taskgalaxy_ops.usage import Usage


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that has not ended."""

    nonce: str
    id: str | None  # None: it is not known whether it was made
    model: Model
    units: int
    at: float


_SEVERAL = TypeAdapter(list[PendingBatch])


def to_json(those: Sequence[PendingBatch]) -> list[dict[str, Any]]:
    """As JSON, for who waits elsewhere; it holds no key."""
    found: list[dict[str, Any]] = _SEVERAL.dump_python(list(those), mode="json", exclude_defaults=True)
    return found


def read(those: Sequence[Mapping[str, Any]]) -> list[PendingBatch]:
    """What ``plain`` gave."""
    return _SEVERAL.validate_python(those)


def awaited(open_: Mapping[str, Mapping[str, Any]], ids: Mapping[str, str]) -> list[PendingBatch]:
    """The batches of an image shard that have not ended."""
    return [
        PendingBatch(
            nonce,
            ids.get(nonce),
            Model.model_validate(intent["model"]),
            sum(len(describe["units"]) for describe in intent["requests"].values()),
            intent["at"],
        )
        for nonce, intent in open_.items()
    ]


def deadline(settings: BatchSettings) -> float:
    """Until when a run that begins now waits, on the monotonic clock."""
    return time.monotonic() + (math.inf if settings.wait_seconds is None else settings.wait_seconds)


def watched(those: Sequence[PendingBatch], usage: Usage) -> list[PendingBatch]:
    """Those of models that are not left alone in this run: another look at them may tell something."""
    return [each for each in those if each.model.name not in usage.unavailable]


async def until_one_ends(gateway: Gateway, those: Sequence[PendingBatch], settings: BatchSettings, by: float) -> bool:
    """Wait until there is something to collect or to decide about one of these; False: not by then, or never.

    by: on the monotonic clock. A provider that gives no reply to ``retries`` looks and one more in a row is left alone
    for this run.
    """
    silent: Counter[str] = Counter()  # looks in a row, by model
    while True:
        left = watched(those, gateway.usage)
        if not left or time.monotonic() + settings.poll_seconds > by:
            return False
        await asyncio.sleep(settings.poll_seconds)
        for each in left:
            try:
                if each.id is None:
                    found = await gateway.batches.find(each.model, each.nonce, each.at)
                    if found is not None or time.time() - each.at >= settings.lookup_seconds:
                        return True
                elif (await gateway.batches.look(each.model, each.id)).ended:
                    return True
                silent[each.model.name] = 0
            except ModelError as error:
                gateway.disable(each.model, str(error))
            except NoReplyError as error:
                silent[each.model.name] += 1
                if silent[each.model.name] > each.model.retries:
                    gateway.disable(each.model, str(error))


def describe(those: Sequence[PendingBatch]) -> list[str]:
    """What is awaited, a line a model."""
    lines = []
    for name in sorted({each.model.name for each in those}):
        mine = [each for each in those if each.model.name == name]
        units = sum(each.units for each in mine)
        named = ", ".join(each.id or "one that may not have been made" for each in mine[:3])
        more = f" and {len(mine) - 3} more" if len(mine) > 3 else ""
        lines.append(f"{name}: {units:,} request items in batch {named}{more}, under way: run again to collect them")
    return lines
