"""Preference pairs for DPO: an accepted answer, and one to the same question that judges voted down.

There are some where the teacher answers a question several times (``write.answers``), or people correct answers. The
margin is the share of votes that approve the chosen answer, less that of the rejected one; what a person says counts
as all votes.
"""

from __future__ import annotations

from taskgalaxy_ops.generation.forms import Texts, conversation
from taskgalaxy_ops.release.formats.layouts import Row, parts
from taskgalaxy_ops.release.formats.tables import MESSAGES_COLUMN, NUMBER, TEXT, table_format
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.voted_down import approval, beside
from taskgalaxy_ops.text import normal_answer


def _rows(plan: Selection, sample: Sample) -> list[Row]:
    if sample.further_turns is not None:
        return []
    found = []
    for other in beside(plan.rows, sample):
        margin = approval(plan.rows, sample.pair) - other.share
        same = normal_answer(other.answer) == normal_answer(sample.answer)  # their reasoning was voted on, or chance
        if margin <= 0 or same:
            continue
        asked, chosen = _said(sample, sample.answer, sample.reasoning)
        _, rejected = _said(sample, other.answer, other.reasoning)
        found.append(
            {
                "prompt": asked,
                "chosen": chosen,
                "rejected": rejected,
                "margin": round(margin, 3),
                "rejected_id": other.pair,
            }
        )
    return found


def _said(sample: Sample, answer: str, reasoning: str | None) -> tuple[list[Row], list[Row]]:
    """The messages up to an answer, and the answer's."""
    [(asked, said)] = conversation(sample.variant, Texts(sample.question, answer, reasoning))
    messages = parts([("human", asked), ("gpt", said)], len(sample.locations))
    return messages[:1], messages[1:]


PREFERENCE = table_format(
    "preference",
    {
        "prompt": MESSAGES_COLUMN,
        "chosen": MESSAGES_COLUMN,
        "rejected": MESSAGES_COLUMN,
        "margin": NUMBER,
        "rejected_id": TEXT,
    },
    _rows,
    about="chosen and rejected answers, for TRL's DPO",
    of_published=False,
)
