"""Write: the teacher writes a question and its answer for each fitting task type of an image (paper, section 3.3).

Pure functions: the units that are needed, and the pairs from the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.models.request import RequestItem, RequestTemplate, entry_schema, field, ordered, terminal
from taskgalaxy_ops.records import Answer, Pair, Reason, Reject, Relevant, pair_id
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.text import clean

WRITE_VERSION = 1

# Texts that a trainer's tokenizer reads as special tokens.
_SPECIAL = re.compile(r"<\s*image\s*>|<\|[^|]{0,40}\|>|</?s>|\[/?INST\]", re.IGNORECASE)


def write_template(prompt: str, teacher: Model, variant: str) -> RequestTemplate:
    """The request for a question and its answer, for one variant."""
    return RequestTemplate(
        stage="write",
        prompt=prompt,
        model=teacher,
        head={"request": "write", "variant": variant},
        items="task_types",
        replies="pairs",
        schema=entry_schema(question="string", answer="string", reasoning="string"),
        read=_read_pair,
    )


def _read_pair(_: Mapping[str, Any], entry: Any) -> Answer:
    return Answer({name: clean(field(entry, name, str)) for name in ("question", "answer", "reasoning")})


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
    question, text, thought = (answer.value[name] for name in ("question", "answer", "reasoning"))
    reasoning = (thought or None) if variant == "chain_of_thought" else None
    if not question and not text:
        return reject(Reason.DECLINED, "the teacher found nothing to ask")
    if not question or not text or (variant == "chain_of_thought" and not reasoning):
        empty = "question" if not question else "answer" if not text else "reasoning"
        return reject(Reason.EMPTY, f"no {empty}")
    if found := _SPECIAL.search(f"{question}\n{text}\n{reasoning or ''}"):
        return reject(Reason.UNSAFE_TEXT, f"holds {found.group()!r}")
    pair = pair_id(image, task_type, variant, question, text, reasoning)
    return Pair(pair, image, task_type, variant, question, text, reasoning)
