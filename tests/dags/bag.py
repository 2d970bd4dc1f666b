"""The DAGs as the processor loads them, and the table of them that the docs show."""

from __future__ import annotations

from functools import cache
from typing import Any

from taskgalaxy_ops.demo.airflow_stack import ROOT


def fresh(file: str = "") -> Any:
    """The DAGs of a file, or every DAG of the repository, parsed anew: a run leaves its form in the DAG's params."""
    import sys

    sys.path[:0] = [str(ROOT / "dags"), str(ROOT / "plugins")]
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(ROOT / "dags" / file))


@cache
def bag() -> Any:
    """The same, parsed once."""
    return fresh()


def table() -> str:
    """The table of DAGs in the docs, as Markdown."""
    lines = ["| DAG | starts by | reads, writes | a re-run | form |", "|---|---|---|---|---|"]
    for name, dag in sorted(bag().dags.items()):
        text = dag.doc_md
        facts = " ".join(_part(text, "Reads", "A re-run").split())
        again = " ".join(_part(text, "A re-run", "").split())
        form = ", ".join(f"`{param}`" for param in dag.params) or "none"
        lines.append(f"| `{name}` | {_starts(dag)} | {facts} | {again} | {form} |")
    return "\n".join(lines)


def _part(text: str, begins: str, ends: str) -> str:
    """From one bold lead to another, both taken out."""
    _, _, rest = text.partition(f"**{begins}**")
    cut = rest.partition(f"**{ends}**")[0] if ends else rest.partition("\n\n")[0]
    return cut.replace("**", "").strip()


def _starts(dag: Any) -> str:
    from airflow.serialization.encoders import coerce_to_core_timetable

    timetable = coerce_to_core_timetable(dag.timetable)
    assets = sorted({key.name for key, _ in timetable.asset_condition.iter_assets()}) if timetable.partitioned else []
    parts = [f"announced (`{name}`)" for name in assets]
    if not assets and timetable.can_be_scheduled:
        parts.append(f"schedule (`{timetable.summary}`)")
    return ", ".join([*parts, "form"])
