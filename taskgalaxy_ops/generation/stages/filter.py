"""Filter: the teacher keeps the task types that fit an image (paper, section 3.2).

Pure functions: the units that are needed, and the relevant matches from the answers. With ``write.fused`` a request
for verdicts asks along for the questions on what fits; their answers are those of the write stage's units, which finds
them there (models/request.py, ``FollowUp``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskgalaxy_ops.generation.form_shares import forms_of, suited
from taskgalaxy_ops.generation.stages import write
from taskgalaxy_ops.generation.stages.asking import Answers, Output, Tables, Templates, Work, lacking
from taskgalaxy_ops.models.request import (
    CANARY_TASK_TYPE,
    FollowUp,
    RequestItem,
    RequestTemplate,
    entry_schema,
    field,
    ordered,
    reason_of,
    terminal,
)
from taskgalaxy_ops.prompts import joined
from taskgalaxy_ops.records import Answer, Match, Reason, Reject, Relevant
from taskgalaxy_ops.settings import Model, Settings, WriteSettings
from taskgalaxy_ops.text import clean


def templates(prompts: Mapping[str, str], settings: Settings) -> Templates:
    """One: the teacher's. It knows the questions that may be asked along, also where none is: a batch may hold some."""
    alone = filter_template(prompts["filter"], settings.teacher)
    return {"filter": replace(alone, follow_ups=_follow_ups(alone, write.templates(prompts, settings)))}


def _follow_ups(alone: RequestTemplate, written: Templates) -> dict[str, FollowUp]:
    """By question form. One whose reply has a field of ours is asked apart, and so is one about several images."""
    return {
        form: FollowUp(
            name=form,
            template=template,
            where="fits",
            prompt=joined(alone.prompt, template.prompt),
            head={**template.head, "request": "filter and write"},
        )
        for form, template in written.items()
        if alone.fields.keys() & template.fields.keys() == {"index"} and template.groups is None
    }


def rules(_: Settings) -> dict[str, Any]:
    """None beside the template."""
    return {}


def work(templates: Templates, rows: Sequence[Match], settings: Settings) -> Work:
    """A unit a match; out come the relevant ones."""
    template = templates["filter"]
    units = filter_units(template, rows)

    def needed(answers: Answers) -> list[tuple[RequestTemplate, list[RequestItem]]]:
        return as_asked(template, lacking(units, answers), settings.write)

    def output(answers: Answers) -> Output:
        made = filtered(units, answers)
        tables: Tables = {"relevant": made.relevant, "rejects": made.rejects}
        return Output(tables, len(units), len(made.relevant), made.pending)

    return Work(needed, output)


def as_asked(
    template: RequestTemplate, units: Sequence[RequestItem], write_settings: WriteSettings
) -> list[tuple[RequestTemplate, list[RequestItem]]]:
    """The units with the templates that ask them. With ``write.fused`` the requests about an image ask along for the
    question form that most of its units are written in, if they fit; of several such, the first of the settings."""
    if not write_settings.fused:
        return [(template, list(units))]
    patterns, of_image = suited(write_settings), dict[str, list[tuple[RequestItem, tuple[str, ...]]]]()
    for unit in units:
        image = unit.image or ""
        forms = forms_of(write_settings, patterns, image, unit.item["task_type"])
        of_image.setdefault(image, []).append((unit, forms))
    found: dict[str, list[RequestItem]] = {}
    for own in of_image.values():
        count = Counter(form for _, forms in own for form in forms if form in template.follow_ups)
        form = max(write_settings.variants, key=lambda form: count[form]) if count else ""
        asked = template.along(form).follow_up
        found.setdefault(form, []).extend(
            replace(unit, follow_up=asked.template.unit(unit.image, unit.item).key) if asked and form in forms else unit
            for unit, forms in own
        )
    return [(template.along(form), part) for form, part in found.items()] or [(template, [])]


def reader(model: Model, _: str | None, __: str | None = None) -> RequestTemplate:
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
