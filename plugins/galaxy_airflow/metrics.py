"""Metrics of our tasks, by Airflow's own exporter: calls, tokens, spend, rate, rejects, pending.

Airflow puts its prefix before each name (``airflow.taskgalaxy.calls``). Each task is a process of its own, which sends
what it has counted as it ends. docs/airflow.md has the table of names, tags and units.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.text import shown
from taskgalaxy_ops.usage import Usage

log = logging.getLogger("taskgalaxy")

_LONGEST = 64  # characters of a tag's value
_SOURCES = 200  # that are told apart, since each makes time series of its own
_OTHER = "other"
_EXPORTERS = ("otel_on", "statsd_on", "statsd_datadog_enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a task did for a stage.

    source, lane: None where the task is not of one. pending: the stage's units that have no answer yet; None: it has
    none of its own. rejects: by reason, of what is finished, so that no later try counts them again; model: whose
    replies they are, None where several models decide.
    """

    dag: str
    stage: str
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    source: str | None = None
    lane: int | None = None
    pending: int | None = None
    rejects: Mapping[str, int] = field(default_factory=dict)
    model: str | None = None


def tell(done: Callable[[], Iterable[Work]]) -> None:
    """Hand what a task did to Airflow's exporter. Without one, ``done`` is not called. What goes wrong is logged."""
    try:
        if _exported():
            for work in done():
                _tell(work)
    except Exception:  # numbers for a dashboard must not fail a task whose calls have been paid for
        log.exception("the task's metrics could not be told")


def source_label(source: str, registered: Collection[str]) -> str:
    """The tag of a source: its name; ``other`` beyond the first 200 registered ones, in order of name."""
    return source if source in sorted(registered)[:_SOURCES] else _OTHER


def _exported() -> bool:
    from airflow.sdk.configuration import conf

    return any(conf.getboolean("metrics", name, fallback=False) for name in _EXPORTERS)


def _tell(work: Work) -> None:
    from airflow.sdk.observability import stats

    tags = _tags(dag_id=work.dag, stage=work.stage, source=work.source)
    lane = _tags(lane=work.lane)
    for model, used in sorted(work.usage.by_model.items()):
        of = {**tags, **_tags(model=model)}
        stats.incr("taskgalaxy.calls", used.calls, tags=of)
        stats.incr("taskgalaxy.tokens", used.prompt_tokens, tags={**of, "kind": "prompt"})
        stats.incr("taskgalaxy.tokens", used.completion_tokens, tags={**of, "kind": "completion"})
        stats.incr("taskgalaxy.spend", used.cost / NANO, tags=of)
        if work.seconds > 0:
            stats.gauge("taskgalaxy.rate", used.units / work.seconds, tags={**of, **lane})
    known = {str(reason) for reason in Reason}
    for reason, count in work.rejects.items():
        told = _tags(model=work.model, reason=reason if reason in known else _OTHER)
        stats.incr("taskgalaxy.rejects", count, tags={**tags, **told})
    if work.pending is not None:
        stats.gauge("taskgalaxy.pending", work.pending, tags={**tags, **lane})


def _tags(**values: str | int | None) -> dict[str, str]:
    """Tags without those that are unknown. Values are one line of bounded length; a hash keeps cut ones apart."""
    return {name: _bounded(str(value)) for name, value in values.items() if value is not None}


def _bounded(text: str) -> str:
    line = shown(text)
    if len(line) <= _LONGEST:
        return line
    digest = hashlib.sha256(line.encode()).hexdigest()[:8]
    return f"{line[: _LONGEST - len(digest) - 1]}~{digest}"
