"""
# Backfill sources

Announces registered sources again, so that `galaxy_generate` runs them: after the taxonomy has grown, a prompt or a
judge has changed, or a run was short of budget. Only requests without an answer are asked.

**Reads** the registry, the journals (for the plan).
**Writes** an announcement; the plan as a page (the button *Plan* of the task `plan`), and the forecast (*Forecast* of
`forecast`), if it is asked for.

**A dry run** shows these and announces nothing. **A re-run** announces again, which costs what is still unanswered.
Airflow's own `backfill` command selects runs by date, and these DAGs have no dates: use this form instead.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, TriggerRule, dag

from galaxy_airflow.forms import version
from galaxy_airflow.links import linked
from galaxy_airflow.operators import task
from galaxy_defaults import (
    ENCODERS,
    OFFERED_SETTINGS,
    OFFERED_SOURCES,
    OFFERED_TAXONOMIES,
    SOURCES,
    TEACHER,
    Receipt,
    announcing,
    common,
)


@dag(
    dag_id="galaxy_backfill",
    dag_display_name="Galaxy 8: backfill sources",
    description="Runs registered sources again; shows first what that would ask and cost.",
    doc_md=__doc__,
    schedule=announcing(None),
    tags=["galaxy", "sources", "generate"],
    max_active_runs=1,
    params={
        "sources": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            **OFFERED_SOURCES,
            title="Sources",
            description="Names of registered sources. Empty: all of them.",
        ),
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Only show what would be done, why, and what it would take.",
        ),
        "forecast": Param(
            False,
            type="boolean",
            title="Forecast",
            description="What it would cost, with an interval. Where too few images are answered, of a source and of "
            "the others, a few are asked about first, in a dry run too, at most one in twenty of a source but one at "
            "least; no run asks about them again.",
        ),
        "taxonomy_version": version(
            OFFERED_TAXONOMIES,
            title="Taxonomy version",
            description="Empty: the newest. An older one is published again as the newest, since a store has one "
            "taxonomy at a time; a dry run only plans with it.",
        ),
        "settings_version": version(
            OFFERED_SETTINGS,
            title="Settings version",
            description="One that the store has published before (a release's history.json names its own). "
            "Empty: the mounted settings.",
        ),
        "budget": Param(
            None,
            type=["null", "number"],
            minimum=0,
            title="Budget",
            description="USD that may be spent from now on, if the settings' budget does not end before. "
            "Empty: the settings' alone.",
        ),
    },
    **common("backfill"),
)
def galaxy_backfill() -> None:
    @task(pool=ENCODERS, queue="encoders")
    def plan(params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import backfill

        return backfill.plan(params)

    @task(pool=TEACHER, queue="models")
    def forecast(planned: dict[str, Any], params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import backfill

        return backfill.forecast_backfill(planned, params["forecast"])

    @task(outlets=[SOURCES], trigger_rule=TriggerRule.NONE_FAILED)
    def announce(planned: dict[str, Any], params: dict[str, Any], outlet_events: Any) -> Receipt:
        from galaxy_airflow.tasks import backfill

        return backfill.announce_backfill(outlet_events[SOURCES], planned, params["dry_run"])

    planned = linked(plan(), "Plan")
    linked(forecast(planned), "Forecast") >> announce(planned)


galaxy_backfill()
