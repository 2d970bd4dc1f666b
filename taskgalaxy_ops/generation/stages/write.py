"""Write: the teacher writes a question and its answer for each fitting task type of an image (paper, section 3.3).

With ``write.answers`` it is asked its questions again, one request an answer, so that no answer is given in sight of
another. Such further answers become pairs of their own; which questions there are is known once the first answers are.

Pure functions: the units that are needed, and the pairs from the answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from taskgalaxy_ops.extensions import LANGUAGES
from taskgalaxy_ops.generation.checks import checked, decided_by
from taskgalaxy_ops.generation.form_shares import forms_of, suited
from taskgalaxy_ops.generation.forms import FORMS, QuestionForm, Texts
from taskgalaxy_ops.generation.stages.asking import Answers, Output, Tables, Templates, Work, lacking
from taskgalaxy_ops.generation.swaps import OF, Swapped, swapped
from taskgalaxy_ops.generation.swaps import VERSION as SWAPS
from taskgalaxy_ops.models.request import (
    ANY_TEXT,
    CANARY_QUESTION,
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
from taskgalaxy_ops.records import (
    Answer,
    Pair,
    Reason,
    Reject,
    Relevant,
    images_as_text,
    pair_id,
    reject_of,
    turns_as_text,
)
from taskgalaxy_ops.settings import Model, Settings
from taskgalaxy_ops.settings.checks import CheckSettings
from taskgalaxy_ops.text import clean, normal_answer

ANSWER = "answer"  # the kind of a request for a further answer, and the name of its prompt

_JSON = {str: "string", int: "integer", bool: "boolean"}

# Special tokens in answers that an older version kept. What is read today holds none (models/special_tokens.py); these
# stay rejects, so that what hangs on them stays as it was.
_SPECIAL = re.compile(r"<\s*image\s*>|<\|[^|]{0,40}\|>|</?s>|\[/?INST\]", re.IGNORECASE)


def templates(prompts: Mapping[str, str], settings: Settings) -> Templates:
    """One a question form of the settings; then one a further answer, of the forms that can be answered again."""
    write, teacher = settings.write, settings.teacher
    forms = sorted(write.variants)
    found = {form: write_template(prompts[f"write_{form}"], teacher, form) for form in forms}
    if write.answers_temperature is not None:
        teacher = teacher.model_copy(update={"temperature": write.answers_temperature})
    for form in (form for form in forms if FORMS.get(form).again and not FORMS.get(form).language):
        for number in range(2, write.answers + 1):
            found[_further(form, number)] = answer_template(prompts[ANSWER], teacher, form, number)
    return found


def _further(form: str, number: int) -> str:
    return f"{form}, answer {number}"


def rules(settings: Settings) -> dict[str, Any]:
    """The question forms; where they are set, which of them a match is written in, which matches are asked another
    image's question, the checks, and how many answers there are."""
    checks, shares, share, number = (
        getattr(settings.write, name) for name in ("checks", "shares", "swapped", "answers")
    )
    suits = {form: list(patterns) for form, patterns in suited(settings.write).items() if patterns}
    return {
        "variants": sorted(set(settings.write.variants)),
        **({} if shares is None else {"shares": shares}),
        **({"suits": suits} if suits else {}),
        **({"swapped": {"share": share, "version": SWAPS}} if share else {}),
        **({} if checks is None else {"checks": decided_by(checks)}),
        **({} if number == 1 else {"answers": number}),
    }


def work(templates: Templates, rows: Sequence[Relevant], settings: Settings) -> Work:
    """A unit a relevant match and question form that it is written in, and one a further answer; out come pairs that
    pass the checks."""
    checks, (units, unasked) = settings.write.checks, units_by_form(templates, rows, settings)
    again = list(further_answers(templates).values())

    def first(answers: Answers) -> tuple[Written, int]:
        """What becomes of the first answers, and how many there are to be."""
        made = {form: written(form, units[form], answers) for form in units}
        taken = Swapped()
        if share := settings.write.swapped:
            open_ = {(unit.image or "", unit.item["task_type"]) for unit in lacking(units[OF], answers)}
            taken = swapped(rows, made[OF].pairs, open_, share)
        every = [*taken.pairs, *(pair for part in made.values() for pair in part.pairs)]
        pairs = sorted(every, key=lambda pair: pair.pair)
        pairs, refused = (pairs, []) if checks is None else checked(pairs, checks)
        rejects = [*unasked, *(row for part in made.values() for row in part.rejects), *taken.rejects, *refused]
        pending = sum(part.pending for part in made.values()) + len(taken.pending)
        return Written(pairs, rejects, pending), sum(map(len, units.values())) + len(unasked) + taken.drawn

    def further_units(answers: Answers) -> list[tuple[RequestTemplate, list[RequestItem]]]:
        pairs = first(answers)[0].pairs if again else []
        return [(template, lacking(answer_units(template, pairs), answers)) for template in again]

    def needed(answers: Answers) -> list[tuple[RequestTemplate, list[RequestItem]]]:
        return [*((templates[form], lacking(units[form], answers)) for form in units), *further_units(answers)]

    def most(answers: Answers) -> int:
        forms = Counter(template.head["variant"] for template in again)
        open_ = sum(len(lacking(units[form], answers)) * (1 + forms[form]) for form in units)
        return open_ + sum(len(lacks) for _, lacks in further_units(answers))

    def output(answers: Answers) -> Output:
        made, due = first(answers)
        more = answered_again(again, made.pairs, answers, checks)
        pairs = sorted([*made.pairs, *more.pairs], key=lambda pair: pair.pair)
        tables: Tables = {"pairs": pairs, "rejects": [*made.rejects, *more.rejects]}
        asked = due + len(more.pairs) + len(more.rejects) + more.pending
        return Output(tables, asked, len(pairs), made.pending + more.pending)

    return Work(needed, output, most if again else None)


def units_by_form(
    templates: Templates, rows: Sequence[Relevant], settings: Settings
) -> tuple[dict[str, list[RequestItem]], list[Reject]]:
    """The units of each question form, and the rejects of matches that no form suits, or that are to be asked about
    several images and whose image has no group."""
    patterns = suited(settings.write)
    forms = [forms_of(settings.write, patterns, row.image, row.task_type) for row in rows]
    units = {
        form: write_units(template, (row for row, own in zip(rows, forms, strict=True) if form in own))
        for form, template in first_answers(templates).items()
    }
    no_form = Reason.NO_FORM, "of write.variants, none suits the task type"
    rejects = [
        Reject("write", row.image, row.task_type, *no_form) for row, own in zip(rows, forms, strict=True) if not own
    ]
    for form, each in first_answers(templates).items():
        if each.groups is not None:
            rejects += [_alone(unit, form) for unit in units[form] if not unit.further]
            units[form] = [unit for unit in units[form] if unit.further]
    return units, rejects


def _alone(unit: RequestItem, form: str) -> Reject:
    detail = "its image shard has no other live image that looks otherwise"
    return Reject("write", unit.image or "", unit.item["task_type"], Reason.NO_GROUP, detail, form)


def first_answers(templates: Templates) -> Templates:
    """Of the stage's templates those that ask for a question and its first answer, by question form."""
    return {name: template for name, template in templates.items() if template.head["request"] != ANSWER}


def further_answers(templates: Templates) -> Templates:
    """Those that ask a question again, by form and number."""
    return {name: template for name, template in templates.items() if template.head["request"] == ANSWER}


def asked_for(templates: Templates, pair: Pair) -> tuple[RequestTemplate, RequestItem]:
    """The template and the unit that a pair came from."""
    if pair.number is None:
        template = templates[pair.variant]
        return template, template.unit(pair.image, {"task_type": pair.task_type}, pair.images[1:])
    template = templates[_further(pair.variant, pair.number)]
    return template, answer_unit(template, pair)


def reader(model: Model, form: str | None, request: str | None = None) -> RequestTemplate:
    """Reads pairs or further answers; those of the forms without a version all alike."""
    if request != ANSWER:
        return write_template("", model, form or "plain")
    plain = answer_template("", model, form or "plain", 2)
    if form is not None:
        return plain
    reasoned = answer_template("", model, "chain_of_thought", 2)

    def read(item: Mapping[str, Any], entry: Any) -> Answer:
        has_reasoning = isinstance(entry, dict) and entry.get("reasoning")
        return (reasoned if has_reasoning else plain).read(item, entry)

    return replace(plain, read=read)


def write_template(prompt: str, teacher: Model, variant: str) -> RequestTemplate:
    """The request for a question and its answer, for one variant. Raises SettingsError for an unknown variant."""
    form: QuestionForm = FORMS.get(variant)
    _, language = FORMS.split(variant)
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
        form=_version_of(variant, form),
        groups={} if form.several else None,
    )


def answer_template(prompt: str, teacher: Model, variant: str, number: int) -> RequestTemplate:
    """The request for the answer with this number, from 2 on, to questions that were written. Raises SettingsError."""
    form = FORMS.get(variant)
    fields = {name: kind for name, kind in form.reply.items() if name != "question" and name not in _may_lack(form)}
    return RequestTemplate(
        stage="write",
        prompt=prompt,
        model=teacher,
        head={"request": ANSWER, "variant": variant, "number": number},
        items="questions",
        replies="answers",
        schema=entry_schema(**{name: _JSON[kind] for name, kind in fields.items()}),
        read=partial(_read_answer, form, fields),
        canary={"task_type": CANARY_TASK_TYPE, "question": CANARY_QUESTION},
        form=_version_of(variant, form),
    )


def _version_of(variant: str, form: QuestionForm) -> dict[str, str] | None:
    name, _ = FORMS.split(variant)
    version = form.version if name in FORMS.shipped else FORMS.version(name)
    return None if version is None else {"name": variant, "version": version}


def _may_lack(form: QuestionForm) -> frozenset[str]:
    """The fields of a reply that may be missing: those that the form names, and reasoning that nobody keeps."""
    return form.may_lack | (frozenset() if form.reasons else frozenset({"reasoning"} & form.reply.keys()))


def _read_pair(form: QuestionForm, _: Mapping[str, Any], entry: Any) -> Answer:
    if isinstance(entry, dict):
        entry = {
            **dict.fromkeys(_may_lack(form), ""),
            **{name: value for name, value in entry.items() if value is not None},
        }
    reply = _told(form.reply, entry)
    texts = form.texts({**reply, "image": "", "task_type": "", "language": form.language})
    if texts.question or texts.answer or texts.further:
        _check(form, texts, reply)
    return Answer(reply)


def _read_answer(form: QuestionForm, fields: Mapping[str, type], item: Mapping[str, Any], entry: Any) -> Answer:
    """item: the question that was asked, {} where it is not known any more."""
    reply = _told(fields, entry)
    if reply["answer"]:
        whole = {**dict.fromkeys(_may_lack(form), ""), "question": item.get("question", ""), **reply}
        _check(form, form.texts({**whole, "image": "", "task_type": "", "language": form.language}), whole)
    return Answer(reply)


def _told(fields: Mapping[str, type], entry: Any) -> dict[str, Any]:
    told = {name: field(entry, name, kind) for name, kind in fields.items()}
    return {name: neutral(clean(value)) if isinstance(value, str) else value for name, value in told.items()}


def _check(form: QuestionForm, texts: Texts, reply: Mapping[str, Any]) -> None:
    if ANY_TEXT in (texts.question, texts.answer, *chain.from_iterable(texts.further)):
        raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
    form.check(reply)


def write_units(question: RequestTemplate, relevant: Iterable[Relevant]) -> list[RequestItem]:
    """A unit for each relevant match, in the variant of the request template."""
    return [question.unit(row.image, {"task_type": row.task_type}) for row in relevant]


@dataclass(frozen=True, slots=True)
class Written:
    """Pairs and rejects of write; with what is pending, as many as there were units."""

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


def _pair(variant: str, unit: RequestItem, answer: Answer, number: int | None = None) -> Pair | Reject:
    """number: of a further answer to the unit's question."""
    image, task_type = unit.image or "", unit.item["task_type"]
    others = images_as_text(unit.further)

    def reject(reason: Reason, detail: str) -> Reject:
        return Reject("write", image, task_type, reason, detail, variant, number=number, further_images=others)

    if (reason := terminal(answer)) is not None or answer.value is None:
        return reject(*(reason or (Reason.MALFORMED, "")))
    form: QuestionForm = FORMS.get(variant)
    told = {**dict.fromkeys(_may_lack(form) | {"reasoning"}, ""), **answer.value, **unit.item, "image": image}
    texts = form.texts({**told, "language": form.language})
    question, text, reasoning = texts.question, texts.answer, texts.reasoning
    if not text and (number is not None or not question):
        return reject(Reason.DECLINED, f"the teacher found nothing to {'ask' if number is None else 'answer'}")
    if not question or not text or (form.reasons and not reasoning):
        empty = "question" if not question else "answer" if not text else "reasoning"
        return reject(Reason.EMPTY, f"no {empty}")
    further = turns_as_text(texts.further)
    if found := _SPECIAL.search("\n".join([question, text, reasoning or "", *chain.from_iterable(texts.further)])):
        return reject(Reason.UNSAFE_TEXT, f"holds {found.group()!r}")
    pair = pair_id(unit.images, task_type, variant, question, text, reasoning, further)
    return Pair(pair, image, task_type, variant, question, text, reasoning, further, number, others)


def answer_unit(template: RequestTemplate, pair: Pair) -> RequestItem:
    """The unit that asks a pair's question again."""
    return template.unit(pair.image, {"task_type": pair.task_type, "question": pair.question})


def answer_units(template: RequestTemplate, pairs: Iterable[Pair]) -> list[RequestItem]:
    """A unit for each of the pairs that has the template's question form."""
    return [answer_unit(template, pair) for pair in pairs if pair.variant == template.head["variant"]]


def answered_again(
    templates: Iterable[RequestTemplate], pairs: Iterable[Pair], answers: Answers, checks: CheckSettings | None
) -> Written:
    """The pairs and rejects of the further answers to the questions of ``pairs``, in the order of these.

    templates: of further answers. An answer that says what one before it says, with the same reasoning, is a reject.
    """
    by_form: dict[str, list[RequestTemplate]] = {}
    for template in templates:
        by_form.setdefault(template.head["variant"], []).append(template)
    made: list[Pair | Reject] = []
    pending = 0
    for pair in pairs:
        said = {_said(pair): 1}
        for template in by_form.get(pair.variant, ()):
            unit, number = answer_unit(template, pair), template.head["number"]
            if (answer := answers.get(unit.key)) is None:
                pending += 1
                continue
            other = _pair(pair.variant, unit, answer, number)
            if isinstance(other, Pair) and (same := said.setdefault(_said(other), number)) != number:
                other = _rejected(other, Reason.DUPLICATE_ANSWER, f"it says what answer {same} says")
            made.append(other)
    found = [each for each in made if isinstance(each, Pair)]
    rejects = [each for each in made if isinstance(each, Reject)]
    if checks is None:
        return Written(found, rejects, pending)
    # Answers to one question ask the same: of the rules on repeats only the first answer tells.
    passed, refused = checked(found, checks.model_copy(update={"repeats": None}))
    return Written(passed, [*rejects, *refused], pending)


def _said(pair: Pair) -> tuple[str, str]:
    return normal_answer(pair.answer), normal_answer(pair.reasoning or "")


def _rejected(pair: Pair, reason: Reason, detail: str) -> Reject:
    return reject_of("write", pair, reason, detail)
