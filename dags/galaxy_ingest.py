"""
# Ingest a source

Registers the images of one source as image shards, and announces the source, so that `galaxy_generate` runs it.

**Reads** the source's files (a folder that the workers see, an `s3://` prefix, or one that ships).
**Writes** images, image shards, rejects with their reasons, and the source's entry in the registry.

**A re-run** reads only files that were added or changed, makes image shards of new images only, and registers nothing
if nothing changed. Broken files stop nothing: the log names them. The next scan drops a file that was removed.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag

from galaxy_airflow.known import LOCATIONS
from galaxy_airflow.operators import task
from galaxy_defaults import OFFERED_SOURCES, SOURCES, Receipt, announce_at_once, announcing, common


@dag(
    dag_id="galaxy_ingest",
    dag_display_name="Galaxy: ingest a source",
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
            description="What the source is called, in releases and here. That of a registered source scans it again.",
        ),
        "location": Param(
            None,
            type=["null", "string"],
            examples=LOCATIONS,
            title="Location",
            description="A folder as the workers see it, s3://bucket/prefix, or one that ships (builtin:…). "
            "Empty: as in the settings, or where it was last.",
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
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="At most this many files, in order of name. Empty: all.",
        ),
        "announce": announce_at_once(),
    },
    **common("ingest"),
)
def galaxy_ingest() -> None:
    @task
    def register(params: dict[str, Any]) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.register(params["name"], params)

    @task(outlets=[SOURCES])
    def announce(registered: dict[str, Any], params: dict[str, Any], outlet_events: Any) -> Receipt:
        from galaxy_airflow.tasks import sources

        return sources.announce_registered(outlet_events[SOURCES], [registered], "ingest", params["announce"])

    announce(register())


galaxy_ingest()
