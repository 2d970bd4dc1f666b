"""Fields that the forms of several DAGs share, and the words of their choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Param

RUN_NOW, PLAN_FIRST = "run now", "plan first"
ONLY_REGISTER, ONLY_PUBLISH = "only register", "only publish"
EACH_FOLDER = "*"  # as the name of a source: each folder below the location is one


def then(kept: str) -> Param:
    """The choice of what follows where sources are registered, or a taxonomy is published. kept: nothing follows."""
    return Param(
        RUN_NOW,
        type="string",
        enum=[RUN_NOW, PLAN_FIRST, kept],
        title="Then",
        description=f"{RUN_NOW}: ask what is new at once. {PLAN_FIRST}: show what it would ask and cost, and wait for "
        f"a person to approve it. {kept}: ask nothing; galaxy_backfill runs it later.",
    )


def required(**schema: Any) -> dict[str, Any]:
    """The schema of a field that the form requires, and that runs without a form may leave out.

    Airflow validates the runs that an announcement starts with the form's own schema. The form requires a field whose
    ``type`` excludes null; JSON Schema's draft 7 ignores what stands beside a ``$ref``, and Airflow validates by that.
    """
    value = {**schema, "type": ["null", schema["type"]]}
    draft = "http://json-schema.org/draft-07/schema#"
    return {**schema, "$schema": draft, "$ref": "#/definitions/value", "definitions": {"value": value}}


def version(known: Mapping[str, Sequence[str]], **more: Any) -> Param:
    """A field for the number of a version. known: the argument of the field that offers those that are there."""
    return Param(None, type=["null", "string", "integer"], pattern="^[0-9]{1,9}$", minimum=0, **known, **more)


def number(chosen: str | int | None) -> int | None:
    """The version that a field of `version` holds; None: it is empty."""
    return None if chosen is None else int(chosen)
