"""Alerts of failed tasks and late runs: to the log and, as the settings say, to a webhook, by e-mail or to Slack."""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from galaxy_airflow import notes

log = logging.getLogger("taskgalaxy")


def failed(context: Any) -> None:
    """Failure callback of every task."""
    _tell(message(context), "a task failed", context)


async def late(hours: float, context: Mapping[str, Any]) -> None:
    """Deadline callback of runs: Airflow's triggerer calls it where a run has not ended ``hours`` after it was queued.

    context: what the scheduler knew of the run (its ``dag_run``) and the ``deadline`` when it found the run late.
    """
    if text := late_message(hours, context, datetime.now(UTC)):
        await asyncio.to_thread(_tell, text, "a run is late", {})  # in a thread, so that no other trigger is blocked


def late_message(hours: float, context: Mapping[str, Any], now: datetime) -> str:
    """The alert of a late run in one line: DAG, source, run, when it was due; "" for a run that had ended by then.

    A run that fails before its deadline stays due; its failed tasks were told of already.
    """
    run, due = context["dag_run"], _time(context["deadline"]["deadline_time"])
    if run["end_date"] and _time(run["end_date"]) <= due:
        return ""
    of = " ".join(notes.about(run["dag_id"], run["partition_key"], run["conf"]).split())[:200]
    by = timedelta(seconds=max(0, int((now - due).total_seconds())))
    return (
        f"TaskGalaxy: {run['dag_id']}{of and f' ({of})'} is late in run {run['dag_run_id']}: it had not ended "
        f"{hours:g} h after it was queued (due {due:%Y-%m-%d %H:%M} UTC, {by} ago)"
    )


def _time(at: datetime | str) -> datetime:
    return (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)


def _tell(text: str, what: str, context: Any) -> None:
    """Log an alert and send it as the settings say. One that cannot be sent is logged, and raises nothing."""
    from taskgalaxy_ops.errors import SettingsError
    from taskgalaxy_ops.settings import NotifySettings, load_settings, settings_path

    try:
        chosen = load_settings(settings_path()).airflow.notify
    except SettingsError:  # most likely the task failed for the same reason: send the alert to the log only
        chosen = NotifySettings()
    log.error(text)
    try:
        _send(chosen, text, context, what)
    except Exception:
        log.exception("the alert could not be sent by %s (connection %r)", chosen.by, chosen.connection)


def message(context: Any) -> str:
    """The alert in one line: DAG, task, partition, run, and the error."""
    ti = context["ti"]
    where = f"{ti.dag_id}.{ti.task_id}" + (f"[{ti.map_index}]" if ti.map_index >= 0 else "")
    key = getattr(context.get("dag_run"), "partition_key", None)
    of = f" ({key})" if key else ""
    why = " ".join(str(context.get("exception") or "no exception").split())[:500]
    return f"TaskGalaxy: {where}{of} failed in run {ti.run_id}: {why}"


def _send(chosen: Any, text: str, context: Any, what: str) -> None:
    # ``notify``, because calling the notifier renders the text as a template, and it may contain a model's words.
    if chosen.by == "webhook":
        from airflow.providers.http.notifications.http import HttpNotifier

        HttpNotifier(http_conn_id=chosen.connection, method="POST", json={"text": text}).notify(context)
    elif chosen.by == "email":
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        SmtpNotifier(
            to=list(chosen.to),
            subject=f"TaskGalaxy: {what}",
            html_content=f"<p>{html.escape(text)}</p>",
            smtp_conn_id=chosen.connection,
        ).notify(context)
    elif chosen.by == "slack":
        from airflow.providers.slack.notifications.slack import SlackNotifier

        SlackNotifier(slack_conn_id=chosen.connection, text=text, channel=chosen.to[0]).notify(context)
