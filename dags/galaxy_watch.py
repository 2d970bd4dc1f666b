"""
# Watch the sources

Lists every registered source, every source of the settings, and the folders below the settings'
`airflow.watch_parents`. New and changed sources are ingested, and announced together.

**Reads** listings; of changed sources, the files that are new.
**Writes** what `galaxy_ingest` writes.

**A re-run** finds what changed since then. If nothing is new, nothing runs downstream. A source that cannot be listed
does not stop the others; the last task is red and names it.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag

from galaxy_airflow.operators import task
from galaxy_defaults import SETTINGS, SOURCES, Receipt, announce_at_once, announcing, common


@dag(
    dag_id="galaxy_watch",
    dag_display_name="Galaxy: watch the sources",
    doc_md=__doc__,
    schedule=announcing(SETTINGS.schedules.watch),
    tags=["galaxy", "sources"],
    max_active_runs=1,
    params={"announce": announce_at_once()},
    **common("watch"),
)
def galaxy_watch() -> None:
    @task
    def look(ti: Any) -> list[str]:
        from galaxy_airflow.tasks import sources

        return sources.look(ti)

    @task(map_index_template="{{ task.op_kwargs['source'] }}")
    def register(source: str) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.register_watched(source)

    @task(outlets=[SOURCES], trigger_rule=TriggerRule.ALL_DONE)
    def announce(registered: Any, params: dict[str, Any], outlet_events: Any) -> Receipt:
        from galaxy_airflow.tasks import common, sources

        found = common.several(registered)
        return sources.announce_registered(outlet_events[SOURCES], found, "watch", params["announce"])

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def complete(changed: Any, registered: Any, ti: Any) -> None:
        from galaxy_airflow.tasks import common, sources

        sources.still_failing(common.several(registered), changed, ti.xcom_pull(task_ids="look", key="failed"))

    changed = look()
    registered = register.expand(source=changed)
    announce(registered) >> complete(changed, registered)


galaxy_watch()
