"""Tasks of galaxy_finetune: check and render the jobs, look at them, score what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow.runtime import log, opened, progress, receipt
from taskgalaxy_ops.evaluate import run as evaluate_run
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.backends import open_backend
from taskgalaxy_ops.finetune.jobs import TrainBackend
from taskgalaxy_ops.reports.pages.finetune import write_card
from taskgalaxy_ops.reports.text import finetune as finetune_text
from taskgalaxy_ops.workspace import Workspace


def check_tuning(form: Mapping[str, Any], partition: str | None) -> dict[str, Any]:
    """A release that is whole and may be trained on, and its jobs rendered; stops them if the form asks for that."""
    began, workspace = time.monotonic(), finetune_run.on_backend(opened(), form["backend"])
    found = finetune_run.tuning(workspace, release=form["release"] or partition, recipe=form["recipe"])
    if form["cancel"]:
        trainings = finetune_run.Trainings(workspace, "cancel", _backend(workspace))
        stopped = [job.name for job in found.jobs.values() if trainings.cancel(job)]
        raise AirflowSkipException(f"cancelled: {', '.join(stopped) or 'none of these jobs was running'}")
    for job in found.jobs.values():
        job.write()
    return receipt(
        "to be trained",
        began,
        release=found.release.name,
        recipe=form["recipe"] or workspace.settings.finetune.recipe,
        backend=workspace.settings.finetune.backend,
        jobs={role: job.key for role, job in found.jobs.items()},
    )


def _backend(workspace: Workspace) -> TrainBackend:
    """The settings' backend; Kubernetes' with the credentials of Airflow's connection."""
    chosen = workspace.settings.finetune
    if chosen.backend == "kubernetes" and chosen.kubernetes:
        from galaxy_airflow.kubernetes import batch_api
        from taskgalaxy_ops.finetune.backends.kubernetes import KubernetesBackend

        return KubernetesBackend(chosen.kubernetes, batch_api(chosen.kubernetes.connection))
    return open_backend(chosen)


def train(checked: Mapping[str, Any], run: str) -> bool:
    """One look at the jobs: submits what is next, shows how far they are; whether all have succeeded."""
    workspace = finetune_run.on_backend(opened(), checked["backend"])
    found = finetune_run.written(workspace, checked["release"], checked["jobs"])
    done = finetune_run.Trainings(workspace, run, _backend(workspace)).done(found.jobs)
    for role, text in finetune_run.progress_lines(found.jobs).items():
        log.info("%s: %s", role, text)
    return done


def evaluate(checked: Mapping[str, Any], benchmarks: Sequence[str]) -> dict[str, Any]:
    """Scores of the checkpoints, and the result card."""
    began, workspace = time.monotonic(), finetune_run.on_backend(opened(), checked["backend"])
    found = finetune_run.written(workspace, checked["release"], checked["jobs"])
    with progress() as shown:
        scored = evaluate_run.score_tuning(workspace, found, benchmarks, shown)
    write_card(workspace, found, scored)
    for line in finetune_text.scored(scored):
        log.info(line)
    return receipt(
        f"scored {found.recipe.name} on {found.release.name}",
        began,
        scores=scored.identity,
        verdicts={f"{each.benchmark} {each.family}".strip(): each.verdict for each in scored.comparisons},
        page=scored.page,
    )
