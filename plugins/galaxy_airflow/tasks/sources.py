"""Tasks that look at sources, register their images, and announce them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from galaxy_airflow.known import remember
from galaxy_airflow.runtime import log, opened, progress, receipt
from taskgalaxy_ops import pipeline
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
        chosen = SourceSettings(**given)
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


def look(ti: Any) -> list[str]:
    """The sources that are new or have changed. The XCom key ``failed`` gets those that cannot be listed, and why."""
    began, workspace = time.monotonic(), opened()
    seen = watch.watch(workspace)
    for name, why in seen.failed.items():
        log.error("%s cannot be looked at: %s", name, why)
    receipt("watch", began, changed=sorted(seen.changed), same=len(seen.same), failed=sorted(seen.failed))
    ti.xcom_push("failed", seen.failed)
    return sorted(seen.changed)


def register_watched(source: str) -> dict[str, Any]:
    """Register a source that a watch found new or changed."""
    return register(source, watch.located(opened())[0][source].model_dump())


def still_failing(
    registered: Sequence[Mapping[str, Any]], changed: Sequence[str] | None, unseen: Mapping[str, str] | None
) -> None:
    """Fail with the names of the sources that a watch could not read (``unseen``) or register.

    changed: the result of ``look``; None: that task failed.
    """
    if changed is None:
        raise AirflowFailException("watch: the task `look` failed, and its log says why")
    done = {each["source"] for each in registered}
    failed = {**(unseen or {}), **{name: "see its task" for name in changed if name not in done}}
    if failed:
        raise AirflowFailException("watch: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))


def announce_registered(
    outlet: Any, registered: Sequence[Mapping[str, Any]], reason: str, wanted: bool
) -> dict[str, Any]:
    """Announce the sources that were registered; skipped unless the form's choice ``wanted`` says so."""
    if not wanted:
        raise AirflowSkipException("only registered: galaxy_backfill says what it would cost, and runs it")
    return announce(outlet, [each["source"] for each in registered], reason)


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
