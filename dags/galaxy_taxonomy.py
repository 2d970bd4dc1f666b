"""
# Grow the taxonomy

Asks the teacher for new task types, lets a person decide, publishes the new version and announces every registered
source, so that the models are asked about task types that newly enter an image's top-k. *Then* in the form may choose
to see first what that would ask, or to publish only.

**Reads** the newest taxonomy version, the taxonomy's journal; where only crowded branches grow, the filter's outputs.
**Writes** a proposal (the button *Proposal* of the task `propose`), then a taxonomy version.

**A re-run** asks nothing that was answered. A scheduled run adds at most `taxonomy.scheduled_new` nodes,
only below nodes with many fitting images a task type. `taxonomy.approval` says whether a person decides: *required*,
*by_rule*, *off*.
A rejected proposal is not published, its nodes are remembered and not proposed again; nothing runs downstream.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, TriggerRule, dag

from galaxy_airflow.forms import ONLY_PUBLISH, then
from galaxy_airflow.links import linked
from galaxy_airflow.operators import TaxonomyApproval, strike_out, task
from galaxy_defaults import SETTINGS, SOURCES, TEACHER, Receipt, announcing, by_hand, common, planned_first


@dag(
    dag_id="galaxy_taxonomy",
    dag_display_name="Galaxy 7: grow the taxonomy",
    description="Asks the teacher for new task types, and lets a person approve them.",
    doc_md=__doc__,
    schedule=announcing(SETTINGS.schedules.taxonomy),
    tags=["galaxy", "taxonomy"],
    max_active_runs=1,
    params={
        "max_new": Param(
            40,
            type="integer",
            minimum=1,
            maximum=100_000,
            title="New nodes",
            description="At most this many are added.",
        ),
        "rounds": Param(
            1,
            type=["null", "integer"],
            minimum=1,
            title="Rounds",
            description="Each asks about every node once more; ends early when nothing new comes. Empty: no bound.",
        ),
        "up_to": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Up to",
            description="Task types at which growing ends; a taxonomy that has them asks nothing. Empty: no end.",
        ),
        "where_images_crowd": Param(
            False,
            type="boolean",
            title="Only where images crowd",
            description="Only below nodes with at least taxonomy.scheduled_images_a_type fitting images a task type, "
            "as a scheduled run does.",
        ),
        "then": then(ONLY_PUBLISH),
    },
    **common("taxonomy"),
)
def galaxy_taxonomy() -> None:
    @task(pool=TEACHER, queue="models")
    def propose(dag_run: Any, params: dict[str, Any], ti: Any, away: Any = None) -> Receipt:
        from galaxy_airflow.tasks import taxonomy

        return taxonomy.propose(params, not by_hand(dag_run), ti, away)

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def publish(proposed: dict[str, Any], ti: Any) -> Receipt:
        from galaxy_airflow.tasks import taxonomy

        return taxonomy.publish_proposal(proposed, ti.xcom_pull(task_ids="approve"))

    @task(outlets=[SOURCES], trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def announce(params: dict[str, Any], outlet_events: Any, ti: Any) -> Receipt:
        from galaxy_airflow.tasks import taxonomy

        return taxonomy.announce_published(outlet_events[SOURCES], params, ti)

    proposed = linked(propose(), "Proposal")
    approve = TaxonomyApproval(
        task_id="approve", about=proposed, params={"strike_out": strike_out()}, execution_timeout=None
    )
    published = publish(proposed)
    announced = announce()
    approve >> published >> announced
    planned_first(published) >> announced


galaxy_taxonomy()
