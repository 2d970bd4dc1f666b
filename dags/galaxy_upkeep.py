"""
# Upkeep

Checks every image, shard, journal and release against hashes and counts; counts what nothing refers to; folds long
journals.

**Reads** everything. **Writes** bases of logs; deletes the entries that they replace, and nothing else.

**A re-run** does it again. Safe beside running pipelines.
"""

from __future__ import annotations

from airflow.sdk import CronTriggerTimetable, dag, task

from galaxy_defaults import COMMON, SETTINGS, Receipt


@dag(
    dag_id="galaxy_upkeep",
    dag_display_name="Galaxy: upkeep",
    doc_md=__doc__,
    schedule=CronTriggerTimetable(SETTINGS.schedules.upkeep, timezone="UTC") if SETTINGS.schedules.upkeep else None,
    tags=["galaxy", "upkeep"],
    max_active_runs=1,
    **COMMON,
)
def galaxy_upkeep() -> None:
    @task
    def verify() -> Receipt:
        from galaxy_airflow import steps

        return steps.check_store()

    @task
    def unreferenced() -> Receipt:
        from galaxy_airflow import steps

        return steps.garbage()

    @task
    def compact() -> Receipt:
        from galaxy_airflow import steps

        return steps.compact()

    verify() >> compact()
    unreferenced()


galaxy_upkeep()
