"""
# Make a release

All accepted pairs of the live images, as an immutable version: LLaVA JSON, Parquet, card, manifest.

**Reads** samples, votes and rejects of all sources.
**Writes** a release and its contact sheet (the button *Contact sheet* of the task `release`).

**Started** when samples are announced, by the settings' schedule, or by hand. Of sources that were announced together
only the last one's run makes a release; the runs before are skipped. **A re-run** makes a release only if it would
differ from the latest. While anything is pending, a run by hand is refused unless *Partial* is chosen.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag

from galaxy_airflow.forms import version
from galaxy_airflow.links import linked
from galaxy_airflow.operators import task
from galaxy_airflow.timetables import Announced
from galaxy_defaults import OFFERED_SETTINGS, RELEASES, SAMPLES, SETTINGS, Receipt, by_hand, common
from taskgalaxy_ops.settings import offered_forms, release_settings

_SHARE = {"type": ["null", "number"], "minimum": 0, "exclusiveMaximum": 1}
_RULES = release_settings()


@dag(
    dag_id="galaxy_release",
    dag_display_name="Galaxy 5: make a release",
    description="Publishes all accepted samples as an immutable version.",
    doc_md=__doc__,
    schedule=Announced(assets=SAMPLES, what="samples are", together=True, cron=SETTINGS.schedules.release),
    tags=["galaxy", "release"],
    max_active_runs=1,
    params={
        "partial": Param(
            False,
            type="boolean",
            title="Partial",
            description="Although something has no answer yet; the release then says so, in name and card.",
        ),
        "cap": Param(
            _RULES.cap,
            type=["null", "integer"],
            minimum=1,
            title="Cap",
            description="Samples a task type at most. Empty: no cap but the settings'.",
        ),
        "validation": Param(_RULES.validation, **_SHARE, title="Validation", description="Share of the images."),
        "test": Param(_RULES.test, **_SHARE, title="Test", description="Share of the images."),
        "variants": Param(
            None if _RULES.variants is None else list(_RULES.variants),
            type=["null", "array"],
            items={"type": "string"},
            examples=offered_forms(),
            title="Variants",
            description="Only these question forms; one in a language by its tag, such as plain-de. "
            "Empty: all, or those of the settings.",
        ),
        "context": Param(
            list(_RULES.context) or None,
            type=["null", "array"],
            items={"type": "string", "minLength": 1, "maxLength": 64},
            title="Context",
            description="What sources say of the images, by field (caption, origin …), beside each row. "
            "Empty: that of the settings.",
        ),
        "settings_version": version(
            OFFERED_SETTINGS,
            title="Settings version",
            description="One that the store has published before. Empty: the mounted settings.",
        ),
    },
    **common("release"),
)
def galaxy_release() -> None:
    @task
    def ready(dag_run: Any) -> None:
        from galaxy_airflow.tasks import release

        release.ready(announced=not by_hand(dag_run))

    @task
    def release(dag_run: Any, params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import release

        return release.release(params, announced=not by_hand(dag_run))

    @task(outlets=[RELEASES])
    def announce(made: dict[str, Any], outlet_events: Any) -> None:
        from galaxy_airflow.tasks import release

        release.announce_release(outlet_events[RELEASES], made)

    made = linked(release(), "Contact sheet")
    ready() >> made
    announce(made)


galaxy_release()
