"""Write: the teacher writes a question and its answer for each fitting task type of an image (paper, section 3.3).

Pure functions: the units that are needed, and the pairs from the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from taskgalaxy_ops.extensions import LANGUAGES
from taskgalaxy_ops.generation.checks import checked, decided_by
from taskgalaxy_ops.generation.form_shares import forms_of, suited
from taskgalaxy_ops.generation.forms import FORMS, QuestionForm
from taskgalaxy_ops.generation.stages.asking import Answers, Output, Tables, Templates, Work, lacking
from taskgalaxy_ops.generation.swaps import OF, Swapped, swapped
from taskgalaxy_ops.generation.swaps import VERSION as SWAPS
from taskgalaxy_ops.models.request import (
    ANY_TEXT,
    CANARY_TASK_TYPE,
    MalformedReplyError,
    RequestItem,
    RequestTemplate,
    entry_schema,
    field,
    ordered,
    terminal,
)
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Answer, Pair, Reason, Reject, Relevant, pair_id, turns_as_text
from taskgalaxy_ops.settings import Model, Settings
from taskgalaxy_ops.text import clean

_JSON = {str: "string", int: "integer", bool: "boolean"}

# Special tokens in answers that an older version kept. What is read today holds none (models/special_tokens.py); these
# stay rejects, so that what hangs on them stays as it was.
_SPECIAL = re.compile(r"<\s*image\s*>|<\|[^|]{0,40}\|>|</?s>|\[/?INST\]", re.IGNORECASE)


def templates(prompts: Mapping[str, str], settings: Settings) -> Templates:
    """One a question form of the settings."""
    forms = sorted(settings.write.variants)
    return {form: write_template(prompts[f"write_{form}"], settings.teacher, form) for form in forms}


def rules(settings: Settings) -> dict[str, Any]:
    """The question forms; where they are set, which of them a match is written in, and the checks."""
    checks, shares, share = settings.write.checks, settings.write.shares, settings.write.swapped
    suits = {form: list(patterns) for form, patterns in suited(settings.write).items() if patterns}
    return {
        "variants": sorted(set(settings.write.variants)),
        **({} if shares is None else {"shares": shares}),
        **({"suits": suits} if suits else {}),
        **({"swapped": {"share": share, "version": SWAPS}} if share else {}),
        **({} if checks is None else {"checks": decided_by(checks)}),
    }


def work(templates: Templates, rows: Sequence[Relevant], settings: Settings) -> Work:
    """A unit a relevant match and question form that it is written in; out come pairs that pass the checks."""
    checks, (units, without) = settings.write.checks, units_by_form(templates, rows, settings)
    unsuited = [_unsuited(row) for row in without]

    def output(answers: Answers) -> Output:
        made = {form: written(form, units[form], answers) for form in units}
        taken = Swapped()
        if share := settings.write.swapped:
            open_ = {(unit.image or "", unit.item["task_type"]) for unit in lacking(units[OF], answers)}
            taken = swapped(rows, made[OF].pairs, open_, share)
        every = [*taken.pairs, *(pair for part in made.values() for pair in part.pairs)]
        pairs = sorted(every, key=lambda pair: pair.pair)
        pairs, refused = (pairs, []) if checks is None else checked(pairs, checks)
        rejects = [*unsuited, *(row for part in made.values() for row in part.rejects), *taken.rejects, *refused]
        tables: Tables = {"pairs": pairs, "rejects": rejects}
        asked = sum(map(len, units.values())) + len(unsuited) + taken.drawn
        return Output(tables, asked, len(pairs), sum(part.pending for part in made.values()) + len(taken.pending))

    return Work(lambda answers: [(templates[form], lacking(units[form], answers)) for form in units], output)


def units_by_form(
    templates: Templates, rows: Sequence[Relevant], settings: Settings
) -> tuple[dict[str, list[RequestItem]], list[Relevant]]:
    """The units of each question form, and the relevant matches that no form suits."""
    patterns = suited(settings.write)
    forms = [forms_of(settings.write, patterns, row.image, row.task_type) for row in rows]
    units = {
        form: write_units(template, (row for row, own in zip(rows, forms, strict=True) if form in own))
        for form, template in templates.items()
    }
    return units, [row for row, own in zip(rows, forms, strict=True) if not own]


def _unsuited(row: Relevant) -> Reject:
    return Reject("write", row.image, row.task_type, Reason.NO_FORM, "of write.variants, none suits the task type")


def reader(model: Model, form: str | None) -> RequestTemplate:
    """Reads pairs; those of the forms without a version all alike."""
    return write_template("", model, form or "plain")


def write_template(prompt: str, teacher: Model, variant: str) -> RequestTemplate:
    """The request for a question and its answer, for one variant. Raises SettingsError for an unknown variant."""
    form: QuestionForm = FORMS.get(variant)
    name, language = FORMS.split(variant)
    version = form.version if name in FORMS.shipped else FORMS.version(name)
    return RequestTemplate(
        stage="write",
        prompt=prompt,
        model=teacher,
        head={"request": "write", "variant": variant, **({"language": LANGUAGES[language]} if language else {})},
        items="task_types",
        replies="pairs",
        schema=entry_schema(**{name: _JSON[kind] for name, kind in form.reply.items()}),
        read=partial(_read_pair, form),
        canary={"task_type": CANARY_TASK_TYPE},
        may_lack=_may_lack(form),
        shown={**dict.fromkeys(_may_lack(form), ""), **form.example},
        form=None if version is None else {"name": variant, "version": version},
    )


def _may_lack(form: QuestionForm) -> frozenset[str]:
    """The fields of a reply that may be missing: those that the form names, and reasoning that nobody keeps."""
    return form.may_lack | (frozenset() if form.reasons else frozenset({"reasoning"} & form.reply.keys()))


def _read_pair(form: QuestionForm, _: Mapping[str, Any], entry: Any) -> Answer:
    if isinstance(entry, dict):
        entry = {
            **dict.fromkeys(_may_lack(form), ""),
            **{name: value for name, value in entry.items() if value is not None},
        }
    told = {name: field(entry, name, kind) for name, kind in form.reply.items()}
    reply = {name: neutral(clean(value)) if isinstance(value, str) else value for name, value in told.items()}
    texts = form.texts({**reply, "image": "", "task_type": "", "language": form.language})
    if texts.question or texts.answer or texts.further:
        if ANY_TEXT in (texts.question, texts.answer, *chain.from_iterable(texts.further)):
            raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
        form.check(reply)
    return Answer(reply)


def write_units(question: RequestTemplate, relevant: Iterable[Relevant]) -> list[RequestItem]:
    """A unit for each relevant match, in the variant of the request template."""
    return [question.unit(row.image, {"task_type": row.task_type}) for row in relevant]


@dataclass(frozen=True, slots=True)
class Written:
    """The result of write: relevant matches = pairs + rejects + pending."""

    pairs: list[Pair]
    rejects: list[Reject]
    pending: int


def written(variant: str, units: Sequence[RequestItem], answers: Mapping[str, Answer]) -> Written:
    """Pairs and rejects of one variant, ordered by image and task type."""
    result = Written([], [], sum(unit.key not in answers for unit in units))
    for unit in ordered(units):
        if (answer := answers.get(unit.key)) is None:
            continue
        pair = _pair(variant, unit, answer)
        if isinstance(pair, Pair):
            result.pairs.append(pair)
        else:
            result.rejects.append(pair)
    return result


def _pair(variant: str, unit: RequestItem, answer: Answer) -> Pair | Reject:
    image, task_type = unit.image or "", unit.item["task_type"]

    def reject(reason: Reason, detail: str) -> Reject:
        return Reject("write", image, task_type, reason, detail, variant)

    if (reason := terminal(answer)) is not None or answer.value is None:
        return reject(*(reason or (Reason.MALFORMED, "")))
    form: QuestionForm = FORMS.get(variant)
    told = {**answer.value, "image": image, "task_type": task_type, "language": form.language}
    texts = form.texts(told)
    question, text, reasoning = texts.question, texts.answer, texts.reasoning
    if not question and not text:
        return reject(Reason.DECLINED, "the teacher found nothing to ask")
    if not question or not text or (form.reasons and not reasoning):
        empty = "question" if not question else "answer" if not text else "reasoning"
        return reject(Reason.EMPTY, f"no {empty}")
    further = turns_as_text(texts.further)
    if found := _SPECIAL.search("\n".join([question, text, reasoning or "", *chain.from_iterable(texts.further)])):
        return reject(Reason.UNSAFE_TEXT, f"holds {found.group()!r}")
    pair = pair_id(image, task_type, variant, question, text, reasoning, further)
    return Pair(pair, image, task_type, variant, question, text, reasoning, further)
