"""What waits in Airflow's triggerer, which is one process for all: for providers' batches.

It looks at nothing but the providers: no store, no settings file. Keys come from the connections, as for tasks.
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
    from taskgalaxy_ops.inference.batch_wait import PendingBatch

_LOADED = (
    "taskgalaxy_ops.inference.batch_wait",
    "taskgalaxy_ops.operations.airflow.provision",
    "openai",
    "aiohttp",
    "httpx2",
)


class BatchEnd(BaseTrigger):
    """Fires once there is something to collect or to decide about one of these batches, or waiting is over.

    batches: as ``batch_wait.plain`` gives them, without a key; settings: ``run.batch``, as JSON; until: Unix seconds.
    Whatever it fires for is looked at anew by the task: the journal says what is to be done.
    """

    def __init__(self, batches: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], until: float) -> None:
        super().__init__()
        self.batches = batches
        self.settings = settings
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class, and what makes another one like this."""
        kwargs = {"batches": self.batches, "settings": self.settings, "until": self.until}
        return f"{BatchEnd.__module__}.{BatchEnd.__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the batches every ``poll_seconds``; one event, whether there is something to do about them."""
        for name in _LOADED:
            await asyncio.to_thread(import_module, name)  # other triggers go on meanwhile
        from taskgalaxy_ops.inference import batch_wait
        from taskgalaxy_ops.inference.gateway import Gateway
        from taskgalaxy_ops.settings import BatchSettings

        those = batch_wait.read(self.batches)
        gateway = Gateway(keys={**os.environ, **await _keys(those)})
        by = time.monotonic() + self.until - time.time()
        try:
            ended = await batch_wait.until_one_ends(gateway, those, BatchSettings.model_validate(self.settings), by)
        finally:
            await gateway.aclose()
        for why in gateway.usage.unavailable.values():
            self.log.warning("not looked at from here: %s", why)
        yield TriggerEvent(ended)


async def _keys(those: Sequence[PendingBatch]) -> dict[str, str]:
    """The models' keys that Airflow's connections hold, by the variables in which the library looks for them."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    from taskgalaxy_ops.operations.airflow.provision import model_connection

    found = {}
    for model in {(each.model.name, each.model.api_key_env): each.model for each in those}.values():
        try:
            there = await Connection.async_get(model_connection(model))
        except (AirflowNotFoundException, AirflowRuntimeError):
            continue
        if there.password:
            found[model.api_key_env] = there.password
    return found
