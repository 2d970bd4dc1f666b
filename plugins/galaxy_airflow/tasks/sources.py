"""Tasks that look at sources, register their images, and announce them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from galaxy_airflow.runtime import log, opened, progress, receipt
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources import watch


def register(source: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Register a source's images; ``form``: where it lies, if the trigger form says so."""
    began, workspace = time.monotonic(), opened()
    chosen = None
    if form and form.get("location"):
        given = {name: form[name] for name in SourceSettings.model_fields if form.get(name)}
        chosen = SourceSettings(**given)
    with progress() as shown:
        found = pipeline.ingest(workspace, source, chosen=chosen, progress=shown)
    for line in run_text.ingested([found]):
        log.info(line)
    return receipt(
        f"ingested {source}",
        began,
        source=source,
        files=found.files,
        images=found.images,
        new_images=found.new_images,
        new_shards=found.new_shards,
        rejects=len(found.rejects),
    )


def look(ti: Any) -> list[str]:
    """The sources that are new or have changed; leaves why others cannot be looked at under the XCom key ``failed``."""
    began, workspace = time.monotonic(), opened()
    found = watch.watch(workspace)
    for name, why in found.failed.items():
        log.error("%s cannot be looked at: %s", name, why)
    receipt("watch", began, changed=sorted(found.changed), same=len(found.same), failed=sorted(found.failed))
    ti.xcom_push("failed", found.failed)
    return sorted(found.changed)


def register_watched(source: str) -> dict[str, Any]:
    """Register what a watch found changed."""
    return register(source, watch.located(opened())[0][source].model_dump())


def still_failing(
    registered: Sequence[Mapping[str, Any]], changed: Sequence[str] | None, unseen: Mapping[str, str] | None
) -> None:
    """Red, and names the sources that a watch could not look at (``unseen``) or register; None: it never looked."""
    if changed is None:
        raise AirflowFailException("watch: the task `look` failed, and its log says why")
    done = {each["source"] for each in registered}
    failed = {**(unseen or {}), **{name: "see its task" for name in changed if name not in done}}
    if failed:
        raise AirflowFailException("watch: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))


def announce_registered(
    outlet: Any, registered: Sequence[Mapping[str, Any]], reason: str, wanted: bool
) -> dict[str, Any]:
    """Announce what was registered; skipped where the form asks for registering alone."""
    if not wanted:
        raise AirflowSkipException("only registered: galaxy_backfill says what it would cost, and runs it")
    return announce(outlet, [each["source"] for each in registered], reason)


def announce(outlet: Any, sources: Sequence[str] | None, reason: str, **orders: Any) -> dict[str, Any]:
    """Announce sources together (None: all registered ones), to the store and to Airflow. Skipped if there is none."""
    began, workspace = time.monotonic(), opened()
    names = sorted(workspace.registry.scans()) if sources is None else sorted(set(sources))
    number = announcements.announce(workspace, names, reason, **orders)
    if number is None:
        raise AirflowSkipException("nothing to announce: nothing runs downstream")
    outlet.add_partitions(names)
    return receipt("announced", began, announcement=number, sources=names)
