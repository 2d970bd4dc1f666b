"""
# Generate samples of a source

Runs the stages embed and match, filter, write, vote for one source (the run's partition), in lanes of its image
shards. Started when a source is announced, or by hand for one or several registered sources. A lane whose models are
asked by batch is deferred until a batch has ended, and holds no slot meanwhile.

With targets (`targets` in the settings) a run has one lane, which also holds the images of sources that were run
before: what is asked about an image hangs on what the others gave. Its last task asks in waves, until each task type
has its samples or is given up.

**Reads** image shards, the newest taxonomy, the journals.
**Writes** embeddings, matches, replies, pairs, votes, samples, rejects; then announces the source's samples.

**A re-run** asks only what has no answer yet: a cleared lane continues after its last committed stage output. A stage
whose model serves nothing is deferred until the model is back, at most for its `patience_seconds`. Where something
stays without an answer (the patience is over, the budget is spent), the stage is red and says what and why, as does
`complete`; finished work is kept.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task_group

from galaxy_airflow.forms import required
from galaxy_airflow.operators import task
from galaxy_airflow.timetables import Announced
from galaxy_defaults import ENCODERS, JUDGES, LANE_TIMEOUT, OFFERED_SOURCES, SAMPLES, SOURCES, TEACHER, Receipt, common


def sources_of(dag_run: Any, params: dict[str, Any]) -> list[str]:
    """The run's sources: its partition key, or the form's if it has none. One may be given as ``source``, too."""
    if dag_run.partition_key:
        return [str(dag_run.partition_key)]
    return list(dict.fromkeys(params["sources"] or filter(None, [params.get("source")])))


def run_stage(name: str, lane: dict[str, Any], ti: Any, away: Any = None) -> Receipt:
    from galaxy_airflow.tasks import generate

    return generate.stage(name, lane, ti, away)


def unfinished(ti: Any) -> list[Any]:
    """What the stages of all lanes left without an answer, in the order of the stages."""
    stages = [f"lane_of_shards.{name}" for name in ("filter", "write", "vote")]
    return [each for each in ti.xcom_pull(task_ids=stages, key="unfinished") if each is not None]


LANE: dict[str, Any] = {
    "execution_timeout": LANE_TIMEOUT,
    "map_index_template": "{{ task.op_args[0]['label'] }}",
}
# What one stage left without an answer does not keep the next from what there is.
AFTER: dict[str, Any] = {**LANE, "trigger_rule": TriggerRule.ALL_DONE_MIN_ONE_SUCCESS}


@task_group
def lane_of_shards(lane: dict[str, Any]) -> Any:
    """One lane: its image shards pass through the stages, each stage as far as models and budget allow."""

    @task(pool=ENCODERS, queue="encoders", **LANE)
    def embed_match(lane: dict[str, Any], ti: Any) -> Receipt:
        return run_stage("match", lane, ti)

    @task(pool=TEACHER, queue="models", **LANE)
    def filter(lane: dict[str, Any], ti: Any, away: Any = None) -> Receipt:
        return run_stage("filter", lane, ti, away)

    @task(pool=TEACHER, queue="models", **AFTER)
    def write(lane: dict[str, Any], ti: Any, away: Any = None) -> Receipt:
        return run_stage("write", lane, ti, away)

    @task(pool=JUDGES, queue="models", **AFTER)
    def vote(lane: dict[str, Any], ti: Any, away: Any = None) -> Receipt:
        return run_stage("vote", lane, ti, away)

    matched, written, voted = embed_match(lane), write(lane), vote(lane)
    matched >> filter(lane) >> written >> voted
    matched >> [written, voted]
    return voted


@dag(
    dag_id="galaxy_generate",
    dag_display_name="Galaxy 4: generate samples",
    description="Asks teacher and judges about the images of one or several sources, and keeps what reaches quorum.",
    doc_md=__doc__,
    schedule=Announced(assets=SOURCES, what="a source is"),
    tags=["galaxy", "generate"],
    max_active_runs=4,
    params={
        "sources": Param(
            None,
            **required(type="array", items={"type": "string"}, **OFFERED_SOURCES),
            title="Sources",
            description="Registered ones. Runs that an announcement started have theirs as their partition.",
        ),
    },
    **common("generate"),
)
def galaxy_generate() -> None:
    @task(pool=ENCODERS, queue="encoders")
    def lanes(dag_run: Any, params: dict[str, Any]) -> list[dict[str, Any]]:
        from galaxy_airflow.tasks import generate

        return generate.lanes(sources_of(dag_run, params))

    @task(outlets=[SAMPLES], trigger_rule=TriggerRule.ALL_DONE)
    def announce(lanes: Any, dag_run: Any, params: dict[str, Any], outlet_events: Any, ti: Any) -> None:
        from galaxy_airflow.tasks import generate

        sources = sources_of(dag_run, params)
        generate.announce_samples(outlet_events[SAMPLES], sources, list(lanes or []), unfinished(ti))

    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0)
    def complete(lanes: Any, votes: Any, dag_run: Any, params: dict[str, Any], ti: Any) -> Receipt:
        from galaxy_airflow.tasks import common, generate

        return generate.complete(sources_of(dag_run, params), lanes, common.several(votes), unfinished(ti))

    dealt = lanes()
    votes = lane_of_shards.expand(lane=dealt)
    announced = announce(dealt)
    votes >> announced >> complete(dealt, votes)


galaxy_generate()
