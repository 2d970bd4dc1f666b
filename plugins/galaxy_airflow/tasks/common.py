"""Functions that several DAGs' tasks share: read results of mapped tasks, and defer while batches are under way."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from galaxy_airflow.operators import GalaxyOperator, Waiting
from galaxy_airflow.triggers import BatchEnd, ModelBack
from taskgalaxy_ops.inference import batch_wait, model_wait
from taskgalaxy_ops.settings import Settings

# A worker reports within about six seconds that a task's process has ended (workers.min_heartbeat_interval), a busy
# machine later. Airflow 3.3 takes a deferred task that is resumed before this report for a killed one.
_LEAST_POLL_SECONDS = 20.0


def several(results: Any) -> list[Mapping[str, Any]]:
    """The results of mapped tasks as a list, without those that have none.

    Airflow returns the result of a mapped group with one task bare, not in a list.
    """
    if results is None:
        return []
    return [results] if isinstance(results, Mapping) else [each for each in results if each is not None]


def defer(those: Sequence[batch_wait.PendingBatch], settings: Settings, since: datetime) -> None:
    """Defer the task until one of these batches has ended; does nothing where there is none, or no time left.

    those: the batches that are waited for. since: when this try of the task began. Raises Waiting.
    """
    batch = settings.run.batch
    poll = max(batch.poll_seconds, _LEAST_POLL_SECONDS)
    longest = math.inf if batch.wait_seconds is None else batch.wait_seconds
    until = since.timestamp() + min(longest, settings.airflow.lane_hours * 3600)
    if those and time.time() + 2 * poll <= until:  # time for one poll at least, whenever the triggerer starts
        trigger = BatchEnd(batch_wait.to_json(those), {**batch.model_dump(), "poll_seconds": poll}, until)
        why = f"waits until one of {len(those):,} batches has ended"
        raise Waiting(why, trigger=trigger, method_name=GalaxyOperator.call_again.__name__)


def defer_until_back(
    away: Mapping[str, float], reasons: Mapping[str, str], settings: Settings, before: Mapping[str, float] | None
) -> None:
    """Defer the task until one of these models serves again; does nothing once the patience of all of them is over.

    away: since when they have served nothing (Unix seconds), by name, as this run of the task saw it; before: as its
    earlier runs saw it. reasons: what the last requests ended with. Raises Waiting.
    """
    now = time.time()
    since = {name: min(at, (before or {}).get(name, at)) for name, at in away.items()}
    models = {model.name: model for model in settings.models if model.name in since}
    until = {name: since[name] + model.patience_seconds for name, model in models.items()}
    if not any(at > now for at in until.values()):
        return
    wait = model_wait.first_wait(now - min(since.values()))
    said = {name: text.partition("; it has served")[0] for name, text in reasons.items()}
    why = [
        f"{name} has served nothing since {_clock(since[name])} ({said[name]}): looked at again at "
        f"{_clock(now + wait)}, then every {model_wait.LOOK_SECONDS:.0f} s, given up at {_clock(until[name])}"
        for name in sorted(until)
    ]
    trigger = ModelBack(model_wait.to_json(models.values()), wait, max(until.values()))
    again = {"method_name": GalaxyOperator.call_again.__name__, "kwargs": {"away": since}}
    raise Waiting("\n".join(why), trigger=trigger, **again)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
