"""Alerts of failed tasks: to the log and, as the settings say, to a webhook, an e-mail address or a Slack channel."""

from __future__ import annotations

import html
import logging
from typing import Any

log = logging.getLogger("taskgalaxy")


def failed(context: Any) -> None:
    """Failure callback of every task. An alert that cannot be sent is logged, and raises nothing."""
    from taskgalaxy_ops.errors import SettingsError
    from taskgalaxy_ops.settings import NotifySettings, load_settings, settings_path

    try:
        chosen = load_settings(settings_path()).airflow.notify
    except SettingsError:  # most likely the task failed for the same reason: send the alert to the log only
        chosen = NotifySettings()
    text = message(context)
    log.error(text)
    try:
        _send(chosen, text, context)
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


def _send(chosen: Any, text: str, context: Any) -> None:
    # ``notify``, because calling the notifier renders the text as a template, and it may contain a model's words.
    if chosen.by == "webhook":
        from airflow.providers.http.notifications.http import HttpNotifier

        HttpNotifier(http_conn_id=chosen.connection, method="POST", json={"text": text}).notify(context)
    elif chosen.by == "email":
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        SmtpNotifier(
            to=list(chosen.to),
            subject="TaskGalaxy: a task failed",
            html_content=f"<p>{html.escape(text)}</p>",
            smtp_conn_id=chosen.connection,
        ).notify(context)
    elif chosen.by == "slack":
        from airflow.providers.slack.notifications.slack import SlackNotifier

        SlackNotifier(slack_conn_id=chosen.connection, text=text, channel=chosen.to[0]).notify(context)
