"""Tasks of galaxy_finetune: check the release and render the jobs, follow them, score their checkpoints."""

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
from taskgalaxy_ops.operations import weak_branches
from taskgalaxy_ops.reports.pages.finetune import write_card
from taskgalaxy_ops.reports.text import finetune as finetune_text
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.workspace import Workspace

_TOLD = "progress"
_WEAKEST = 3  # branches that the log names


def check_tuning(form: Mapping[str, Any], partition: str | None) -> dict[str, Any]:
    """Check that a release is whole and may be trained on, and write its jobs; cancel them if the form says so.

    partition: the release that triggered this run, or None. Such a run goes by the mounted settings: nobody chose what
    the form shows.
    """
    if partition:
        form = {**form, "recipe": None, "backend": None}
    began, workspace = time.monotonic(), finetune_run.on_backend(opened(), form["backend"])
    tuning = finetune_run.tuning(workspace, release=form["release"] or partition, recipe=form["recipe"])
    if form["cancel"]:
        trainings = finetune_run.Trainings(workspace, "cancel", _backend(workspace))
        stopped = [job.name for job in tuning.jobs.values() if trainings.cancel(job)]
        raise AirflowSkipException(f"cancelled: {', '.join(stopped) or 'none of these jobs was running'}")
    for job in tuning.jobs.values():
        job.write()
    return receipt(
        "to be trained",
        began,
        release=tuning.release.name,
        recipe=form["recipe"] or workspace.settings.finetune.recipe,
        backend=workspace.settings.finetune.backend,
        jobs={role: job.key for role, job in tuning.jobs.items()},
    )


def _backend(workspace: Workspace) -> TrainBackend:
    """The backend of the settings; the Kubernetes one gets the credentials of Airflow's connection."""
    chosen = workspace.settings.finetune
    if chosen.backend == "kubernetes" and chosen.kubernetes:
        from galaxy_airflow.kubernetes import batch_api
        from taskgalaxy_ops.finetune.backends.kubernetes import KubernetesBackend

        return KubernetesBackend(chosen.kubernetes, batch_api(chosen.kubernetes.connection))
    return open_backend(chosen)


def train(checked: Mapping[str, Any], run: str, told: Any) -> bool:
    """Submit the next job, log which jobs have got on since the last look, and return whether all have succeeded.

    run: names this try of the task; a job that failed in it is not submitted again in it. told: what Airflow keeps of
    the task from one look to the next.
    """
    workspace = finetune_run.on_backend(opened(), checked["backend"])
    tuning = finetune_run.written(workspace, checked["release"], checked["jobs"])
    done = finetune_run.Trainings(workspace, run, _backend(workspace)).done(tuning.jobs)
    lines, before = finetune_run.progress_lines(tuning.jobs), told.get(_TOLD, {})
    for role, text in lines.items():
        if before.get(role) != text:
            log.info("%s: %s", role, text)
    told.set(_TOLD, lines)
    return done


def evaluate(checked: Mapping[str, Any], benchmarks: Sequence[str]) -> dict[str, Any]:
    """Score the checkpoints, and write the result card."""
    began, workspace = time.monotonic(), finetune_run.on_backend(opened(), checked["backend"])
    tuning = finetune_run.written(workspace, checked["release"], checked["jobs"])
    with progress() as shown:
        scored = evaluate_run.score_tuning(workspace, tuning, benchmarks, shown)
    write_card(workspace, tuning, scored)
    if weak := weak_branches.record(workspace):
        named = run_text.weak_branches(weak, _WEAKEST)
        log.info("recorded for growth and targets: %s", "; ".join(named) or "no branch is weaker than others")
    for line in finetune_text.scored(scored):
        log.info(line)
    return receipt(
        f"scored {tuning.recipe.name} on {tuning.release.name}",
        began,
        scores=scored.identity,
        verdicts={f"{each.benchmark} {each.family}".strip(): each.verdict for each in scored.comparisons},
        page=scored.page,
    )
