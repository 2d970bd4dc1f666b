"""What several DAGs' tasks do: read mapped results, and give the slot back while batches are under way."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import TaskDeferred

from galaxy_airflow.operators import WaitingOperator
from galaxy_airflow.runtime import log
from galaxy_airflow.triggers import BatchEnd
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.settings import Settings

# A worker tells within six seconds or so that a task's process has ended (workers.min_heartbeat_interval). One that is
# deferred and goes on before that counts for Airflow 3.3 as killed.
_LEAST_POLL_SECONDS = 10.0


def several(results: Any) -> list[Mapping[str, Any]]:
    """The results of mapped tasks that have one, as a list. Of a mapped group of one, Airflow gives it bare."""
    if results is None:
        return []
    return [results] if isinstance(results, Mapping) else [each for each in results if each is not None]


def defer(those: Sequence[batch_wait.PendingBatch], settings: Settings, since: datetime) -> None:
    """Give the slot back until one of these batches has ended; does nothing where there is none, or no time left."""
    batch = settings.run.batch
    poll = max(batch.poll_seconds, _LEAST_POLL_SECONDS)
    longest = math.inf if batch.wait_seconds is None else batch.wait_seconds
    until = since.timestamp() + min(longest, settings.airflow.lane_hours * 3600)
    if those and time.time() + 2 * poll <= until:  # time for a look, whenever the triggerer takes it up
        log.info("deferred until one of %s batches has ended", f"{len(those):,}")
        trigger = BatchEnd(batch_wait.to_json(those), {**batch.model_dump(), "poll_seconds": poll}, until)
        raise TaskDeferred(trigger=trigger, method_name=WaitingOperator.call_again.__name__)
