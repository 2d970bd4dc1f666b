"""Waits for models that serve nothing: asks their servers for the list of models, until one replies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.http import Sender
from taskgalaxy_ops.settings import Model

LOOK_SECONDS = 15.0  # between two looks
_LONGEST_FIRST = 300.0

_LIST = TypeAdapter(list[Model])


def to_json(models: Iterable[Model]) -> list[dict[str, Any]]:
    """The models as JSON, for a process that waits elsewhere. It holds no API key."""
    items: list[dict[str, Any]] = _LIST.dump_python(list(models), mode="json", exclude_defaults=True)
    return items


def read(items: Sequence[Mapping[str, Any]]) -> list[Model]:
    """The models from what ``to_json`` returned."""
    return _LIST.validate_python(items)


def first_wait(away: float) -> float:
    """Seconds before the first look at a model that has served nothing for ``away`` seconds.

    A quarter of that time: a server may reply, and its model serve nothing all the same.
    """
    return min(_LONGEST_FIRST, max(LOOK_SECONDS, away / 4))


async def until_one_is_back(models: Collection[Model], keys: Mapping[str, str], wait: float, until: float) -> bool:
    """Wait until the server of one of these models replies without failing; False if none does before ``until``.

    ``keys``: the API keys, by environment variable. ``wait``: seconds before the first look. ``until``: Unix seconds. A
    model that cannot be asked for want of a key counts as back, since the run says what is missing.
    """
    sender = Sender(keys)
    try:
        while time.time() + wait < until:
            await asyncio.sleep(wait)
            wait = LOOK_SECONDS
            for model in models:
                try:
                    if await sender.replies(model):
                        return True
                except ModelError:
                    return True
        await asyncio.sleep(max(0.0, until - time.time()))
        return False
    finally:
        await sender.aclose()
