"""
# Watch the sources

Lists every registered source, every source of the settings, and the folders below the settings'
`airflow.watch_parents`. New and changed sources are ingested, and announced together; the form may choose to see the
plan first, or to leave it at that.

**Reads** listings; of changed sources, the files that are new.
**Writes** what `galaxy_ingest` writes.

**A re-run** finds what changed since then. If nothing is new, nothing runs downstream. A source that cannot be listed
does not stop the others; the last task is red and names it.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag

from galaxy_airflow.forms import ONLY_REGISTER, then
from galaxy_airflow.operators import task
from galaxy_defaults import SETTINGS, SOURCES, Receipt, announcing, common, planned_first


@dag(
    dag_id="galaxy_watch",
    dag_display_name="Galaxy 3: watch the sources",
    description="Finds sources that are new or have changed, and ingests them.",
    doc_md=__doc__,
    schedule=announcing(SETTINGS.schedules.watch),
    tags=["galaxy", "sources"],
    max_active_runs=2,  # one may wait for a person who approves its plan
    params={"then": then(ONLY_REGISTER)},
    **common("watch"),
)
def galaxy_watch() -> None:
    @task
    def look(params: dict[str, Any], ti: Any) -> list[dict[str, Any]]:
        from galaxy_airflow.tasks import sources

        return sources.look(params, ti)

    @task(map_index_template="{{ task.op_kwargs['source']['name'] }}")
    def register(source: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.register(source["name"], source)

    @task(outlets=[SOURCES], trigger_rule=TriggerRule.ALL_DONE)
    def announce(registered: Any, params: dict[str, Any], outlet_events: Any, ti: Any) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.announce_registered(outlet_events[SOURCES], registered, "watch", params, ti)

    @task(trigger_rule=TriggerRule.NONE_FAILED)  # a source that could not be registered has its own red task
    def complete(looked: Any, registered: Any, params: dict[str, Any], ti: Any) -> None:
        from galaxy_airflow.tasks import sources

        sources.still_failing(registered, looked, params, ti)

    looked = look()
    registered = register.expand(source=looked)
    announced = announce(registered)
    planned_first(registered) >> announced >> complete(looked, registered)


galaxy_watch()
