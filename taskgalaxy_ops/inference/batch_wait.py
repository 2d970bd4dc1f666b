"""Waits for an image shard's batches. The waiter needs no lease: it only looks at the provider's side.

It lists the batches that have not ended, waits until one ends, and describes what is awaited.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingBatch:
    """A batch that has not ended."""

    nonce: str
    id: str | None  # None: it is not known whether it was made
    model: Model
    units: int
    at: float  # when it was submitted, seconds since the epoch
    retry_at: float = 0.0  # 0: it was submitted; else its provider had no room, and it is submitted again at this time


_LIST = TypeAdapter(list[PendingBatch])


def to_json(batches: Sequence[PendingBatch]) -> list[dict[str, Any]]:
    """The batches as JSON, for a process that waits elsewhere. It holds no API key."""
    items: list[dict[str, Any]] = _LIST.dump_python(list(batches), mode="json", exclude_defaults=True)
    return items


def read(items: Sequence[Mapping[str, Any]]) -> list[PendingBatch]:
    """The batches from what ``to_json`` returned."""
    return _LIST.validate_python(items)


def awaited(open_: Mapping[str, Mapping[str, Any]], ids: Mapping[str, str]) -> list[PendingBatch]:
    """The batches of an image shard that have not ended.

    ``open_``: their intents by nonce; ``ids``: the provider's ids that are known, by nonce (see journal_batches.py).
    """
    return [
        PendingBatch(
            nonce=nonce,
            id=ids.get(nonce),
            model=Model.model_validate(intent["model"]),
            units=sum(len(request["units"]) for request in intent["requests"].values()),
            at=intent["at"],
        )
        for nonce, intent in open_.items()
    ]


def deadline(settings: BatchSettings) -> float:
    """When a run that begins now stops waiting, on the monotonic clock."""
    return time.monotonic() + (math.inf if settings.wait_seconds is None else settings.wait_seconds)


def watched(batches: Sequence[PendingBatch], usage: Usage) -> list[PendingBatch]:
    """The batches of models that are not disabled in this run, so that looking at them again is of use."""
    return [batch for batch in batches if batch.model.name not in usage.unavailable]


async def until_one_ends(gateway: Gateway, batches: Sequence[PendingBatch], settings: BatchSettings, by: float) -> bool:
    """Wait until one of these batches has ended, or was found, or must be given up as never created.

    Returns False if that does not happen before ``by`` (on the monotonic clock), or if all models are disabled. A model
    whose provider does not reply to more than ``retries`` looks in a row is disabled for this run.
    """
    silent: Counter[str] = Counter()  # failed looks in a row, by model
    while True:
        left = watched(batches, gateway.usage)
        if not left or time.monotonic() + settings.poll_seconds > by:
            return False
        await asyncio.sleep(settings.poll_seconds)
        for batch in left:
            try:
                if batch.retry_at:
                    if time.time() >= batch.retry_at:
                        return True
                    continue
                if batch.id is None:
                    status = await gateway.batches.find(batch.model, batch.nonce, batch.at)
                    if status is not None or time.time() - batch.at >= settings.lookup_seconds:
                        return True
                elif (await gateway.batches.look(batch.model, batch.id)).ended:
                    return True
                silent[batch.model.name] = 0
            except ModelError as error:
                gateway.disable(batch.model, str(error))
            except NoReplyError as error:
                silent[batch.model.name] += 1
                if silent[batch.model.name] > batch.model.retries:
                    gateway.disable(batch.model, str(error))


def describe(batches: Sequence[PendingBatch]) -> list[str]:
    """A line for batch model that says what is awaited from it."""
    lines = []
    for name in sorted({batch.model.name for batch in batches}):
        of_model = [batch for batch in batches if batch.model.name == name]
        units = sum(batch.units for batch in of_model)
        named = ", ".join(batch.id or "one that may not have been made" for batch in of_model[:3])
        if crowded := [batch for batch in of_model if batch.retry_at]:
            lines.append(f"{name}: {sum(batch.units for batch in crowded):,} request items wait for room in its queue")
            of_model = [batch for batch in of_model if not batch.retry_at]
            units = sum(batch.units for batch in of_model)
            if not of_model:
                continue
            named = ", ".join(batch.id or "one that may not have been made" for batch in of_model[:3])
        more = f" and {len(of_model) - 3} more" if len(of_model) > 3 else ""
        lines.append(f"{name}: {units:,} request items in batch {named}{more}, under way: run again to collect them")
    return lines
