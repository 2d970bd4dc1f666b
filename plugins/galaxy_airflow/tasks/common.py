"""Functions that several DAGs' tasks share: read results of mapped tasks, and defer while batches are under way."""

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

# A worker reports within about six seconds that a task's process has ended (workers.min_heartbeat_interval). Airflow
# 3.3 takes a deferred task that is resumed before this report for a killed one.
_LEAST_POLL_SECONDS = 10.0


def several(results: Any) -> list[Mapping[str, Any]]:
    """The results of mapped tasks as a list, without those that have none.

    Airflow returns the result of a mapped group with one task bare, not in a list.
    """
    if results is None:
        return []
    return [results] if isinstance(results, Mapping) else [each for each in results if each is not None]


def defer(those: Sequence[batch_wait.PendingBatch], settings: Settings, since: datetime) -> None:
    """Defer the task until one of these batches has ended; does nothing where there is none, or no time left.

    those: the batches that are waited for. since: when this try of the task began. Raises TaskDeferred.
    """
    batch = settings.run.batch
    poll = max(batch.poll_seconds, _LEAST_POLL_SECONDS)
    longest = math.inf if batch.wait_seconds is None else batch.wait_seconds
    until = since.timestamp() + min(longest, settings.airflow.lane_hours * 3600)
    if those and time.time() + 2 * poll <= until:  # time for one poll at least, whenever the triggerer starts
        log.info("deferred until one of %s batches has ended", f"{len(those):,}")
        trigger = BatchEnd(batch_wait.to_json(those), {**batch.model_dump(), "poll_seconds": poll}, until)
        raise TaskDeferred(trigger=trigger, method_name=WaitingOperator.call_again.__name__)
