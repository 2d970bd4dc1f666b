"""
# Doctor

Checks everything that a run needs: the store with its conditional writes, each model (with one tiny call), the
encoder, this machine. Each task is green, or red with the fix in its log.

**Reads** the settings, the connections. **Writes** a probe into the store, and deletes it.

**A re-run** checks again.
"""

from __future__ import annotations

from airflow.sdk import dag

from galaxy_airflow.operators import task
from galaxy_defaults import ENCODERS, JUDGES, Receipt, by_cron, common


@dag(
    dag_id="galaxy_doctor",
    dag_display_name="Galaxy 1: doctor",
    description="Checks the store, each model, the encoder and this machine.",
    doc_md=__doc__,
    schedule=by_cron(None),
    tags=["galaxy", "upkeep"],
    max_active_runs=1,
    **common("doctor"),
)
def galaxy_doctor() -> None:
    @task(retries=0)
    def store() -> Receipt:
        return examine("store")

    @task(retries=0, pool=JUDGES, queue="models")
    def models() -> Receipt:
        return examine("models")

    @task(retries=0, pool=ENCODERS, queue="encoders")
    def encoder() -> Receipt:
        return examine("encoder")

    @task(retries=0)
    def machine() -> Receipt:
        return examine("machine")

    [store(), models(), encoder(), machine()]


def examine(part: str) -> Receipt:
    from galaxy_airflow.tasks import upkeep

    return upkeep.examine(part)


galaxy_doctor()
