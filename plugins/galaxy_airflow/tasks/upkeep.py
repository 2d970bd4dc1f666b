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
from taskgalaxy_ops.reports.text.release import pushed_copies

_SHOWN = 20


def check_store() -> dict[str, Any]:
    """Verify the store; fails where something is damaged."""
    began, workspace = time.monotonic(), opened()
    with progress() as shown:
        findings = verify(workspace, shown)
    for line in run_text.verified(findings):
        log.info(line)
    if findings.damage:
        raise AirflowFailException(f"{len(findings.damage)} damaged: {'; '.join(findings.damage[:_SHOWN])}")
    return receipt("verified", began, **findings.checked)


def garbage(form: Mapping[str, Any]) -> dict[str, Any]:
    """Count, or delete, the objects that nothing refers to and that are older than the form's grace period."""
    began, workspace = time.monotonic(), opened()
    delete, grace = bool(form.get("delete")), float(form.get("grace_days", 7)) * 86400
    with progress() as shown:
        collected = gc.collect(workspace, grace_seconds=grace, delete=delete, progress=shown)
    done = "unreferenced, deleted" if delete else "unreferenced (dry run)"
    return receipt(
        done, began, objects=collected.objects, bytes=collected.size, young=collected.young, first=list(collected.first)
    )


def finish_takedowns() -> dict[str, Any]:
    """Finish every take-down; fails where something of an image is left in the store."""
    began, workspace = time.monotonic(), opened()
    with progress() as shown:
        finished = takedown.finish(workspace, shown)
    for line in pushed_copies(finished.pushed):
        log.warning("%s", line)
    if left := list(takedown.left(workspace)):
        raise AirflowFailException(f"take-downs: {len(left)} things are left: {'; '.join(left[:_SHOWN])}")
    return receipt("take-downs finished", began, images=len(finished.images), shards=finished.shards)


def compact() -> dict[str, Any]:
    """Fold long journals and the budget's ledger."""
    began, workspace = time.monotonic(), opened()
    with progress() as shown:
        folded = gc.compact(workspace, shown)
    return receipt("compacted", began, logs=folded)


def examine(part: str) -> dict[str, Any]:
    """Run one part of the doctor's examination. Raises SettingsError, which names what needs a fix."""
    began = time.monotonic()
    settings = ready_settings()
    findings = list(doctor.CHECKS[part](settings))
    for finding in findings:
        (log.info if finding.fine else log.error)("%s: %s", finding.what, finding.detail)
    if ill := [finding for finding in findings if not finding.fine]:
        raise SettingsError("\n".join(f"{finding.what}: {finding.detail}" for finding in ill))
    return receipt(f"doctor, {part}", began, fine=len(findings))
