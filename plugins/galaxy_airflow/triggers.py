"""Triggers that wait for batches and for models, in Airflow's triggerer (one process for all deferred tasks).

They ask the providers only, and read no store and no settings file. Keys come from Airflow's connections, as in tasks.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from taskgalaxy_ops.settings import Model

_LOADED = (
    "taskgalaxy_ops.inference.batch_wait",
    "taskgalaxy_ops.inference.model_wait",
    "taskgalaxy_ops.operations.airflow.provision",
    "openai",
    "aiohttp",
    "httpx2",
)


class BatchEnd(BaseTrigger):
    """Fires when one of these batches has ended or needs a decision, or the time is over.

    batches: from ``batch_wait.to_json``, without keys. settings: ``run.batch`` as JSON. until: Unix seconds.
    The event carries no result: the task reads the journal and the batches again, and decides what to do.
    """

    def __init__(self, batches: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], until: float) -> None:
        super().__init__()
        self.batches = batches
        self.settings = settings
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The path of the class, and the arguments that recreate this trigger."""
        kwargs = {"batches": self.batches, "settings": self.settings, "until": self.until}
        return f"{BatchEnd.__module__}.{BatchEnd.__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask about the batches every ``poll_seconds``; yields one event: whether one has ended or needs a decision."""
        for name in _LOADED:
            await asyncio.to_thread(import_module, name)  # in a thread, so that other triggers are not blocked
        from taskgalaxy_ops.inference import batch_wait
        from taskgalaxy_ops.inference.gateway import Gateway
        from taskgalaxy_ops.settings import BatchSettings

        pending = batch_wait.read(self.batches)
        gateway = Gateway(keys={**os.environ, **await _keys([each.model for each in pending])})
        deadline = time.monotonic() + self.until - time.time()
        try:
            ended = await batch_wait.until_one_ends(
                gateway, pending, BatchSettings.model_validate(self.settings), deadline
            )
        finally:
            await gateway.aclose()
        for why in gateway.usage.unavailable.values():
            self.log.warning("not looked at from here: %s", why)
        yield TriggerEvent(ended)


class ModelBack(BaseTrigger):
    """Fires when the server of one of these models replies again, or the time is over.

    models: from ``model_wait.to_json``, without keys. wait: seconds before the first look. until: Unix seconds.
    """

    def __init__(self, models: Sequence[Mapping[str, Any]], wait: float, until: float) -> None:
        super().__init__()
        self.models = models
        self.wait = wait
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The path of the class, and the arguments that recreate this trigger."""
        kwargs = {"models": self.models, "wait": self.wait, "until": self.until}
        return f"{ModelBack.__module__}.{ModelBack.__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the models' servers; yields one event: whether one replies again."""
        for name in _LOADED:
            await asyncio.to_thread(import_module, name)  # in a thread, so that other triggers are not blocked
        from taskgalaxy_ops.inference import model_wait

        models = model_wait.read(self.models)
        keys = {**os.environ, **await _keys(models)}
        yield TriggerEvent(await model_wait.until_one_is_back(models, keys, self.wait, self.until))


async def _keys(models: Sequence[Model]) -> dict[str, str]:
    """The keys of these models in Airflow's connections, by the library's environment variables."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    from taskgalaxy_ops.operations.airflow.provision import model_connection

    keys = {}
    for model in {(model.name, model.api_key_env): model for model in models}.values():
        try:
            connection = await Connection.async_get(model_connection(model))
        except (AirflowNotFoundException, AirflowRuntimeError):
            continue
        if connection.password:
            keys[model.api_key_env] = connection.password
    return keys
