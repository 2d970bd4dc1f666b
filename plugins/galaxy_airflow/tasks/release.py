"""Tasks of galaxy_release: decide whether to wait, publish, announce."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow.forms import number
from galaxy_airflow.known import remember
from galaxy_airflow.runtime import log, opened, progress, ready_settings, receipt
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import ReleaseChanges
from taskgalaxy_ops.reports.html import render
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.reports.text import release as release_text
from taskgalaxy_ops.settings import ReleaseSettings, validated
from taskgalaxy_ops.storage import keys


def ready(announced: bool) -> None:
    """Skip the run while a release has to wait for sources that were announced together, or for answers.

    announced: the run was started by an announcement; a run that was started by hand never waits.
    """
    workspace = opened()
    if not announced:
        return
    if waiting := announcements.awaited(workspace):
        raise AirflowSkipException(
            f"waiting for {', '.join(waiting)}, announced together: the last one starts a release"
        )
    if pending := RunResults(workspace).pending:
        raise AirflowSkipException(f"{pending:,} units have no answer yet; the next run that ends starts a release")


def release(form: Mapping[str, Any], announced: bool) -> dict[str, Any]:
    """Publish a release if it differs from the latest, and its contact sheet."""
    began = time.monotonic()
    workspace = opened(number(form["settings_version"]))
    # The form shows the mounted settings' own values: only what a person changed there is a choice.
    rules = ready_settings().release
    mounted = {**rules.model_dump(mode="json"), "context": list(rules.context)}  # which is left out where it is empty
    named = {name: form[name] for name in mounted if form.get(name) not in (None, mounted[name])}
    if named and not announced:
        mine = {**workspace.settings.release.model_dump(), **named}
        chosen = validated(ReleaseSettings, mine, "what the form says of the release")
        workspace = workspace.with_settings(release=chosen)
    results = RunResults(workspace)
    try:
        with progress() as shown:
            made = publish.publish(workspace, partial=bool(form.get("partial")), results=results, progress=shown)
    except SourceError as error:
        if announced:  # nothing has been accepted yet; this is an error only for a person who asked for a release
            raise AirflowSkipException(str(error)) from error
        raise
    page = f"release-{made.release.name}"
    if made.made:
        data = contact_sheet.report_data(results, title=f"TaskGalaxy {made.release.name}", release_counts=made.funnel)
        workspace.store.replace(keys.report(page), render(data).encode())
    for line in release_text.released(made):
        log.info(line)
    remember(workspace)
    return receipt(
        f"release {made.release.name}",
        began,
        version=made.release.name,
        made=made.made,
        samples=made.release.samples,
        task_types=made.release.task_types,
        images=made.release.images,
        partial=made.release.partial,
        **_changes(made.changes),
        page=page,
    )


def _changes(found: ReleaseChanges | None) -> dict[str, Any]:
    """What a release gained and lost against the one before, for its receipt."""
    return {"since": found.since, "gained": found.gained, "lost": dict(found.lost)} if found else {}


def announce_release(outlet: Any, made: Mapping[str, Any]) -> None:
    """Announce a new release to the DAGs that wait for one; skipped where the latest release was left as it is."""
    if not made["made"]:
        raise AirflowSkipException(f"equal to {made['version']}, so no release was made")
    outlet.add_partitions(made["version"])
