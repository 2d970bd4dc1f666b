"""Filter: the teacher keeps the task types that fit an image (paper, section 3.2).

Pure functions: the units that are needed, and the relevant matches from the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.generation.stages.asking import Answers, Output, Tables, Templates, Work, lacking
from taskgalaxy_ops.models.request import (
    CANARY_TASK_TYPE,
    RequestItem,
    RequestTemplate,
    entry_schema,
    field,
    ordered,
    reason_of,
    terminal,
)
from taskgalaxy_ops.records import Answer, Match, Reason, Reject, Relevant
from taskgalaxy_ops.settings import Model, Settings
from taskgalaxy_ops.text import clean


def templates(prompts: Mapping[str, str], settings: Settings) -> Templates:
    """One: the teacher's."""
    return {"filter": filter_template(prompts["filter"], settings.teacher)}


def rules(_: Settings) -> dict[str, Any]:
    """None beside the template."""
    return {}


def work(templates: Templates, rows: Sequence[Match], _: Settings) -> Work:
    """A unit a match; out come the relevant ones."""
    template = templates["filter"]
    units = filter_units(template, rows)

    def output(answers: Answers) -> Output:
        made = filtered(units, answers)
        tables: Tables = {"relevant": made.relevant, "rejects": made.rejects}
        return Output(tables, len(units), len(made.relevant), made.pending)

    return Work(lambda answers: [(template, lacking(units, answers))], output)


def reader(model: Model, _: str | None) -> RequestTemplate:
    """Reads verdicts."""
    return filter_template("", model)


def filter_template(prompt: str, teacher: Model) -> RequestTemplate:
    """The request which task types fit an image."""
    return RequestTemplate(
        stage="filter",
        prompt=prompt,
        model=teacher,
        head={"request": "filter"},
        items="task_types",
        replies="verdicts",
        schema=entry_schema(fits="boolean", reason="string"),
        read=_read_filter,
        canary={"task_type": CANARY_TASK_TYPE},
        may_lack=frozenset({"reason"}),
    )


def _read_filter(_: Mapping[str, Any], entry: Any) -> Answer:
    return Answer({"fits": field(entry, "fits", bool), "reason": clean(reason_of(entry))})


def filter_units(question: RequestTemplate, matches: Iterable[Match]) -> list[RequestItem]:
    """A unit for each match."""
    return [question.unit(match.image, {"task_type": match.task_type}) for match in matches]


@dataclass(frozen=True, slots=True)
class Filtered:
    """The filter's result: matches = relevant + rejects + pending."""

    relevant: list[Relevant]
    rejects: list[Reject]
    pending: int


def filtered(units: Sequence[RequestItem], answers: Mapping[str, Answer]) -> Filtered:
    """Relevant matches and rejects, ordered by image and task type."""
    relevant: list[Relevant] = []
    rejects: list[Reject] = []
    pending = 0
    for unit in ordered(units):
        image, task_type = unit.image or "", unit.item["task_type"]
        answer = answers.get(unit.key)
        if answer is None:
            pending += 1
        elif (reason := terminal(answer)) is not None:
            rejects.append(Reject("filter", image, task_type, *reason))
        elif answer.value is not None and answer.value["fits"]:
            relevant.append(Relevant(image, task_type, answer.value["reason"]))
        else:
            detail = answer.value["reason"] if answer.value else ""
            rejects.append(Reject("filter", image, task_type, Reason.NOT_FITTING, detail))
    return Filtered(relevant, rejects, pending)
