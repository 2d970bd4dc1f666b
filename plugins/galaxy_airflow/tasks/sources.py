"""Tasks that look at sources, register their images, and announce them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow.forms import EACH_FOLDER, ONLY_PUBLISH, ONLY_REGISTER, PLAN_FIRST, RUN_NOW
from galaxy_airflow.known import remember
from galaxy_airflow.notes import SAYS
from galaxy_airflow.operators import PLANNED, NotChosen, PlanApproval
from galaxy_airflow.runtime import log, opened, progress, receipt
from galaxy_airflow.tasks.common import several
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources import watch


def register(source: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Register a source's images. form: the trigger form; it may say where the source lies."""
    began, workspace = time.monotonic(), opened()
    chosen = None
    if form and form.get("location"):
        given = {name: form[name] for name in SourceSettings.model_fields if form.get(name)}
        chosen = SourceSettings(**given, copy=form.get("copy") is not False)
    with progress() as shown:
        ingested = pipeline.ingest(workspace, source, chosen=chosen, progress=shown)
    for line in run_text.ingested([ingested]):
        log.info(line)
    remember(workspace)
    return receipt(
        f"ingested {source}",
        began,
        source=source,
        files=ingested.files,
        images=ingested.images,
        new_images=ingested.new_images,
        new_shards=ingested.new_shards,
        rejects=len(ingested.rejects),
        left_out=sum(ingested.left_out.values()),
    )


def look(form: Mapping[str, Any], ti: Any) -> list[dict[str, Any]]:
    """The sources that are new or have changed, each with its name and settings.

    The XCom ``failed`` gets those that cannot be listed, and why.
    """
    refuse_announce(form)
    began, workspace = time.monotonic(), opened()
    seen = watch.watch(workspace)
    receipt("watch", began, changed=sorted(seen.changed), same=len(seen.same), failed=sorted(seen.failed))
    return _found(seen.changed, seen.failed, ti)


def chosen(form: Mapping[str, Any], ti: Any) -> list[dict[str, Any]]:
    """The sources that the form of galaxy_ingest names, each with its name and settings: one, or each folder's.

    The XCom ``failed`` gets the folders that cannot be sources, and why. Raises SourceError if there is none.
    """
    refuse_announce(form)
    if form["name"] != EACH_FOLDER:
        return [{"name": form["name"]}]
    workspace = opened()
    parents = [form["location"]] if form["location"] else workspace.settings.airflow.watch_parents
    if not parents:
        raise SourceError(f"name {EACH_FOLDER}: fill in Location, or set airflow.watch_parents.")
    found, failed = watch.located_below(workspace, parents)
    if not found and not failed:
        raise SourceError(f"name {EACH_FOLDER}: there is no folder below {', '.join(parents)}.")
    asked = {name: form[name] for name in ("licence", "attribution", "suffixes", "options", "limit") if form.get(name)}
    return _found({name: each.model_copy(update=asked) for name, each in found.items()}, failed, ti)


def _found(sources: Mapping[str, SourceSettings], failed: Mapping[str, str], ti: Any) -> list[dict[str, Any]]:
    for name, why in failed.items():
        log.error("%s cannot be looked at: %s", name, why)
    ti.xcom_push("failed", failed)
    if failed:
        ti.xcom_push(SAYS, "\n".join(f"{name} cannot be looked at: {why}" for name, why in failed.items()))
    return [{"name": name, **chosen.model_dump(mode="json")} for name, chosen in sorted(sources.items())]


def still_failing(registered: Any, looked: Sequence[Mapping[str, Any]], form: Mapping[str, Any], ti: Any) -> None:
    """Fail where a source could not be looked at or registered, or a plan that was to be approved could not be made.

    registered: the receipts of the tasks that registered sources. looked: the result of ``look``.
    """
    done = {each["source"] for each in several(registered)}
    unseen = ti.xcom_pull(task_ids="look", key="failed") or {}
    failed = {**unseen, **{each["name"]: "see its task" for each in looked if each["name"] not in done}}
    if form["then"] == PLAN_FIRST and done and not ti.xcom_pull(task_ids="plan", key=PLANNED):
        failed["plan"] = "see its task; nothing was announced"
    if failed:
        raise SourceError("\n".join(f"{name}: {why}" for name, why in failed.items()))


def announce_registered(outlet: Any, registered: Any, reason: str, form: Mapping[str, Any], ti: Any) -> dict[str, Any]:
    """Announce the sources that were registered, if the form chose to run them, or a person approved their plan."""
    run_or_skip(form, ti)
    return announce(outlet, [each["source"] for each in several(registered)], reason)


def run_or_skip(form: Mapping[str, Any], ti: Any) -> None:
    """Skip the task that announces, unless the form chose to run what is new, or a person approved its plan."""
    refuse_announce(form)
    if form["then"] == PLAN_FIRST:
        # After a run was cleared, the former answer stands until the task starts: it counts if the task ended well.
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=["plan"], run_ids=[ti.run_id])
        ended_well = states.get(ti.run_id, {}).get("plan") == "success"
        answer = (ti.xcom_pull(task_ids="plan") if ended_well else None) or {}
        if PlanApproval.APPROVE not in answer.get("chosen_options", ()):
            raise AirflowSkipException("nobody approved the plan: nothing is announced")
    elif form["then"] != RUN_NOW:
        raise NotChosen(f"{form['then']}: galaxy_backfill says what it would cost, and runs it")


def refuse_announce(form: Mapping[str, Any]) -> None:
    """Refuse what the form asked before it had *Then*: passed over, it would spend what was not to be spent."""
    if "announce" in form:
        choices = f"{RUN_NOW}, {PLAN_FIRST}, {ONLY_REGISTER} (galaxy_taxonomy: {ONLY_PUBLISH})"
        raise SettingsError(f"`announce` is now `then`: one of {choices}.")


def announce(outlet: Any, sources: Sequence[str] | None, reason: str, **orders: Any) -> dict[str, Any]:
    """Announce sources together (None: all registered ones) in the store and to Airflow; skipped if there is none.

    orders: settings version and cost cap with which they are to be run.
    """
    began, workspace = time.monotonic(), opened()
    names = sorted(workspace.registry.scans()) if sources is None else sorted(set(sources))
    number = announcements.announce(workspace, names, reason, **orders)
    if number is None:
        raise AirflowSkipException("nothing to announce: nothing runs downstream")
    outlet.add_partitions(names)
    return receipt("announced", began, announcement=number, sources=names)
