"""
# Fine-tune on a release

Trains a model on a release, mixed with the model's own data, and scores its checkpoint against the one before, with
its images swapped, and against training without images. The result card tells what changed.

**Reads** a release, the recipe, the model's own data.
**Writes** checkpoints into `finetune.folder`, scores, and the result card (the button *Result card* of `evaluate`).

**Started** by the form, or by each new release (`airflow.finetune_on_release`, off by default). Training runs outside
Airflow and holds no slot: `train` checks the job regularly, and shows step, loss and time left. A job goes on when its
task or worker ends. **A re-run** finds jobs that run or have ended by their key, and trains only what changed or
failed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag

from galaxy_airflow.known import BENCHMARKS, recipes
from galaxy_airflow.links import linked
from galaxy_airflow.operators import sensor, task
from galaxy_airflow.timetables import Announced
from galaxy_defaults import ENCODERS, OFFERED_RELEASES, RELEASES, SETTINGS, Receipt, by_cron, common
from taskgalaxy_ops.settings import finetune_settings

_JOB = finetune_settings()


@dag(
    dag_id="galaxy_finetune",
    dag_display_name="Galaxy 6: fine-tune and score",
    description="Trains a model on a release, and scores it against the one before.",
    doc_md=__doc__,
    schedule=Announced(assets=RELEASES, what="a release is") if SETTINGS.finetune_on_release else by_cron(None),
    tags=["galaxy", "finetune"],
    max_active_runs=4,  # a run that cancels must not wait for the one that it cancels; jobs are known by their keys
    params={
        "release": Param(
            None,
            type=["null", "string"],
            pattern="^v[0-9]{6}$",
            **OFFERED_RELEASES,
            title="Release",
            description="Such as v000001. Empty: the latest (or the one that started this run).",
        ),
        "recipe": Param(
            _JOB.recipe,
            type=["null", "string"],
            minLength=1,
            examples=recipes(),
            title="Recipe",
            description="One that ships, or a YAML file's path. Empty: as in the settings.",
        ),
        "backend": Param(
            _JOB.backend,
            type=["null", "string"],
            enum=[None, "local", "command", "kubernetes"],
            title="Backend",
            description="Where it is trained; the settings say how. Empty: as in the settings.",
        ),
        "benchmarks": Param(
            ["held-out", "easy-vqa"],
            type="array",
            items={"type": "string", "minLength": 1},
            uniqueItems=True,
            minItems=1,
            examples=["held-out", "easy-vqa", *BENCHMARKS],
            title="Evaluate on",
            description="held-out: the release's test split. easy-vqa: its own. Others are lmms-eval's: POPE, …",
        ),
        "cancel": Param(
            False,
            type="boolean",
            title="Cancel",
            description="Stop the jobs that this form names instead of training them.",
        ),
    },
    **common("finetune"),
)
def galaxy_finetune() -> None:
    @task
    def check(dag_run: Any, params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import finetune

        return finetune.check_tuning(params, partition=dag_run.partition_key)

    @sensor(
        mode="reschedule",
        # Not less: if a task is queued again before its executor's report arrives, Airflow takes it for killed.
        poke_interval=max(10.0, _JOB.poll_seconds),
        timeout=timedelta(hours=3 * _JOB.hours + 1).total_seconds(),  # each of three jobs has its own limit
    )
    def train(checked: dict[str, Any], run_id: str, ti: Any, task_state_store: Any) -> bool:
        from galaxy_airflow.tasks import finetune

        return finetune.train(checked, f"{run_id}/{ti.try_number}", task_state_store)

    @task(pool=ENCODERS, queue="encoders")
    def evaluate(checked: dict[str, Any], params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import finetune

        return finetune.evaluate(checked, params["benchmarks"])

    checked = check()
    scored = linked(evaluate(checked), "Result card")
    train(checked) >> scored


galaxy_finetune()
