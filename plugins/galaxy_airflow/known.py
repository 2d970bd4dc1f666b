"""What the forms offer to choose from: sources, releases and versions that a store has, recipes and what ships.

DAG files cannot read the store when they are parsed: keys are not there, and it would take long. So tasks that add to
what can be chosen write it down as an Airflow variable, and the next parse reads that.
"""

from __future__ import annotations

import logging
from typing import Any

from taskgalaxy_ops.evaluate.benchmarks import NAMES as BENCHMARKS
from taskgalaxy_ops.finetune.recipes import shipped as recipes
from taskgalaxy_ops.sources.builtin import BUILTIN

__all__ = ["BENCHMARKS", "LOCATIONS", "offered", "recall", "recipes", "remember"]

log = logging.getLogger("taskgalaxy")

VARIABLE = "galaxy_known"
_MOST = 200  # of each kind
LOCATIONS = [f"builtin:{name}" for name in BUILTIN]


def remember(workspace: Any) -> None:
    """Write down what a workspace's store has, if that has changed. It is a convenience: failures are logged."""
    from airflow.sdk import Variable

    from taskgalaxy_ops.release.publish import published
    from taskgalaxy_ops.storage import keys
    from taskgalaxy_ops.storage.log import Log
    from taskgalaxy_ops.taxonomy.store import TaxonomyStore

    try:
        settings = [str(entry.number) for entry in Log(workspace.store, keys.SETTINGS_LOG).read()]
        taxonomies = [str(each["version"]) for each in TaxonomyStore(workspace).versions()]
        now = {
            "sources": sorted(workspace.registry.scans())[:_MOST],
            "releases": [release.name for release in reversed(published(workspace))][:_MOST],
            "settings": settings[::-1][:_MOST],
            "taxonomies": taxonomies[::-1][:_MOST],
        }
        if Variable.get(VARIABLE, default=None, deserialize_json=True) != now:
            Variable.set(VARIABLE, now, description="What TaskGalaxy's forms offer", serialize_json=True)
    except Exception:
        log.exception("what the forms offer could not be written down")


def recall() -> Any:
    """What was written down last; None where there is nothing, or no Airflow to ask."""
    from airflow.sdk import Variable

    try:
        return Variable.get(VARIABLE, default=None, deserialize_json=True)
    except Exception:  # noqa: BLE001 - no database yet, or a variable that somebody changed
        return None


def offered(found: Any, *kinds: str) -> list[dict[str, list[str]]]:
    """For each kind, the argument of a form's field that offers its names in what `recall` found, whatever that is."""
    fields: list[dict[str, list[str]]] = []
    for kind in kinds:
        names = found.get(kind) if isinstance(found, dict) else None
        known = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        fields.append({"examples": known} if known else {})  # an empty list would be a choice of nothing
    return fields
