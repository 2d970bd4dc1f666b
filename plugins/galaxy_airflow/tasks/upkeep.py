"""Tasks of galaxy_upkeep and galaxy_doctor: verify, collect garbage, finish take-downs, compact, examine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from galaxy_airflow.runtime import log, opened, progress, ready_settings, receipt
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.operations import doctor, gc, takedown
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.reports.text import run as run_text

_SHOWN = 20


def check_store() -> dict[str, Any]:
    """Verify everything; red where something is damaged."""
    began, workspace = time.monotonic(), opened()
    with progress() as shown:
        found = verify(workspace, shown)
    for line in run_text.verified(found):
        log.info(line)
    if found.damage:
        raise AirflowFailException(f"{len(found.damage)} damaged: {'; '.join(found.damage[:_SHOWN])}")
    return receipt("verified", began, **found.checked)


def garbage(form: Mapping[str, Any]) -> dict[str, Any]:
    """What nothing refers to and is older than the form's grace period: counted, or deleted."""
    began, workspace = time.monotonic(), opened()
    delete, grace = bool(form.get("delete")), float(form.get("grace_days", 7)) * 86400
    with progress() as shown:
        found = gc.collect(workspace, grace_seconds=grace, delete=delete, progress=shown)
    done = "unreferenced, deleted" if delete else "unreferenced (dry run)"
    return receipt(done, began, objects=found.objects, bytes=found.size, young=found.young, first=list(found.first))


def finish_takedowns() -> dict[str, Any]:
    """Go on with every take-down; red where something is left."""
    began, workspace = time.monotonic(), opened()
    with progress() as shown:
        found = takedown.finish(workspace, shown)
    if left := list(takedown.left(workspace)):
        raise AirflowFailException(f"take-downs: {len(left)} things are left: {'; '.join(left[:_SHOWN])}")
    return receipt("take-downs finished", began, images=len(found.images), shards=found.shards)


def compact() -> dict[str, Any]:
    """Fold long journals and the budget's ledger."""
    began, workspace = time.monotonic(), opened()
    with progress() as shown:
        folded = gc.compact(workspace, shown)
    return receipt("compacted", began, logs=folded)


def examine(part: str) -> dict[str, Any]:
    """One part of the doctor's examination; red where something needs a fix, and names it."""
    began = time.monotonic()
    settings = ready_settings()
    found = list(doctor.CHECKS[part](settings))
    for finding in found:
        (log.info if finding.fine else log.error)("%s: %s", finding.what, finding.detail)
    if ill := [finding for finding in found if not finding.fine]:
        raise SettingsError("\n".join(f"{finding.what}: {finding.detail}" for finding in ill))
    return receipt(f"doctor, {part}", began, fine=len(found))
