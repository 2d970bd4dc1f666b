"""
# Upkeep

Checks every image, stage output, journal and release against hashes and counts; counts objects that nothing refers
to, and deletes them if *Delete* is chosen; compacts long journals; finishes take-downs that were interrupted, and
erases what was written of their images later.

**Reads** everything. **Writes** bases of logs; deletes the log entries that they replace, what take-downs left, and, if
*Delete* is chosen, objects that nothing has referred to for the grace period.

**A re-run** does it again. It is safe while pipelines run.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag

from galaxy_airflow.operators import task
from galaxy_defaults import SETTINGS, Receipt, by_cron, common


@dag(
    dag_id="galaxy_upkeep",
    dag_display_name="Galaxy 9: upkeep",
    description="Verifies the store, finishes take-downs, compacts journals, deletes what nothing refers to.",
    doc_md=__doc__,
    schedule=by_cron(SETTINGS.schedules.upkeep),
    tags=["galaxy", "upkeep"],
    max_active_runs=1,
    params={
        "delete": Param(
            False,
            type="boolean",
            title="Delete",
            description="What nothing refers to is deleted once it is older than the grace period; else only counted.",
        ),
        "grace_days": Param(
            7,
            type="number",
            minimum=1,
            title="Grace period, in days",
            description="More than any run needs from its first write to its last, scans of sources included.",
        ),
    },
    **common("upkeep"),
)
def galaxy_upkeep() -> None:
    @task
    def verify() -> Receipt:
        from galaxy_airflow.tasks import upkeep

        return upkeep.check_store()

    @task
    def unreferenced(params: dict[str, Any] | None = None) -> Receipt:
        from galaxy_airflow.tasks import upkeep

        return upkeep.garbage(params or {})

    @task
    def takedowns() -> Receipt:
        from galaxy_airflow.tasks import upkeep

        return upkeep.finish_takedowns()

    @task
    def compact() -> Receipt:
        from galaxy_airflow.tasks import upkeep

        return upkeep.compact()

    verify() >> compact()
    takedowns() >> unreferenced()


galaxy_upkeep()
