"""
# Ingest a source

Registers the images of one source, or of each folder below a location, as image shards. Then, as *Then* says, it
announces the sources at once, so that `galaxy_generate` runs them; or shows the plan first, and waits for a person to
approve it; or leaves it at that.

**Reads** the source's files (a folder that the workers see, an `s3://` prefix, or one that ships).
**Writes** images, image shards, rejects with their reasons, and the source's entry in the registry.

**A re-run** reads only files that were added or changed, makes image shards of new images only, and registers nothing
if nothing changed. Broken files stop nothing: the log names them. The next scan drops a file that was removed.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, TriggerRule, dag

from galaxy_airflow.forms import EACH_FOLDER, ONLY_REGISTER, then
from galaxy_airflow.known import LOCATIONS
from galaxy_airflow.operators import task
from galaxy_defaults import OFFERED_SOURCES, SETTINGS, SOURCES, Receipt, announcing, common, planned_first


@dag(
    dag_id="galaxy_ingest",
    dag_display_name="Galaxy 2: ingest a source",
    description="Registers the images of a folder or bucket, or of each folder below one.",
    doc_md=__doc__,
    schedule=announcing(None),
    tags=["galaxy", "sources"],
    max_active_runs=8,
    params={
        "name": Param(
            "",
            type="string",
            title="Name",
            minLength=1,
            maxLength=100,
            pattern=r"^[^/\\]+$",
            **OFFERED_SOURCES,
            description="What the source is called, in releases and here. That of a registered source scans it again. "
            f"{EACH_FOLDER}: each folder directly below the location is a source, called as the folder.",
        ),
        "location": Param(
            None,
            type=["null", "string"],
            examples=[*SETTINGS.watch_parents, *LOCATIONS],
            title="Location",
            description="A folder as the workers see it, s3://bucket/prefix, one that ships (builtin:…), or of another "
            "kind (webdataset:…, parquet:…, coco:…; docs/sources.md). "
            f"Empty: as in the settings, or where it was last; for {EACH_FOLDER}, airflow.watch_parents.",
        ),
        "licence": Param(
            None,
            type=["null", "string"],
            title="Licence",
            description="Of all its images, e.g. CC-BY-4.0; the card shows it. Empty: what its source.json says.",
        ),
        "attribution": Param(None, type=["null", "string"], title="Attribution", description="Who is to be named."),
        "suffixes": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "pattern": r"^\.[A-Za-z0-9]{1,8}$"},
            title="Suffixes",
            description="One a line, e.g. .jpg: only files with these. Empty: every file that is an image.",
        ),
        "options": Param(
            {},
            type=["null", "object"],
            additionalProperties={"type": "string"},
            title="Options",
            description='What the kind of source is told beside the location, e.g. {"column": "image"}.',
        ),
        "copy": Param(
            True,
            type="boolean",
            title="Copy",
            description="Store a copy of each image. Off: images stay where they lie, and are read there each time.",
        ),
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="At most this many files, in order of name. Empty: all.",
        ),
        "then": then(ONLY_REGISTER),
    },
    **common("ingest"),
)
def galaxy_ingest() -> None:
    @task
    def look(params: dict[str, Any], ti: Any) -> list[dict[str, Any]]:
        from galaxy_airflow.tasks import sources

        return sources.chosen(params, ti)

    @task(map_index_template="{{ task.op_kwargs['source']['name'] }}")
    def register(source: dict[str, Any], params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.register(source["name"], {**params, **source})

    @task(outlets=[SOURCES], trigger_rule=TriggerRule.ALL_DONE)
    def announce(registered: Any, params: dict[str, Any], outlet_events: Any, ti: Any) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.announce_registered(outlet_events[SOURCES], registered, "ingest", params, ti)

    @task(trigger_rule=TriggerRule.NONE_FAILED)  # a source that could not be registered has its own red task
    def complete(looked: Any, registered: Any, params: dict[str, Any], ti: Any) -> None:
        from galaxy_airflow.tasks import sources

        sources.still_failing(registered, looked, params, ti)

    looked = look()
    registered = register.expand(source=looked)
    announced = announce(registered)
    planned_first(registered) >> announced >> complete(looked, registered)


galaxy_ingest()
