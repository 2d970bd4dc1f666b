"""The forms that a question is written in, a file each: what is asked, how it is read, the conversation it becomes.

A package adds one by an entry point (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskgalaxy_ops import extensions
from taskgalaxy_ops.generation.forms.verification import Verification
from taskgalaxy_ops.records import Turn


class Texts(NamedTuple):
    """What a pair holds; both the question and the answer empty: the teacher declined."""

    question: str
    answer: str
    reasoning: str | None = None
    further: tuple[Turn, ...] = ()  # of a conversation: the turns after the first


def _texts(reply: Mapping[str, Any]) -> Texts:
    return Texts(reply["question"], reply["answer"])


def _turns(texts: Texts) -> Turn:
    return texts.question, f"{texts.reasoning}\n\n{texts.answer}" if texts.reasoning else texts.answer


def _anything(_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionForm:
    """A form of question.

    prompt: the instruction; "" for a form that ships, whose prompt lies in ``prompts/``. reply: the fields of an entry
    of the teacher's reply, texts (str), whole numbers (int) or flags (bool). check: raises MalformedReplyError for a
    reply that is not as it should be, whose message the teacher is told; it sees no reply that declines. texts: the
    pair in a reply, which holds ``image`` and ``task_type`` beside its fields, so that a form may draw by them. turns:
    what a model that is trained on the pair is asked, and what it is to say; it is given each turn of a conversation by
    itself. again: its question can be answered again by itself, in the other fields of the reply. may_lack: fields of
    an entry that may be missing, and are empty then. example: values of the reply that the request shows, where numbers
    counted from one would mislead. suits: patterns of the task types that it is for (generation/form_shares.py); the
    settings may have others. several: it is asked about a group of images (generation/groups.py). version: another one
    whenever any of these gives something else, ``example`` and ``suits`` apart; the two that were first have none.

    verify: how what a model says can be checked against a pair without a model; None: by none but judges.

    languages: tags of those beside English that the form's own words are in, so that it can be written in them; None:
    it has no words of its own. ``texts`` finds the tag as ``language`` in the reply, "" for English.
    """

    prompt: str = ""
    reply: Mapping[str, type] = field(default_factory=lambda: {"question": str, "answer": str, "reasoning": str})
    check: Callable[[Mapping[str, Any]], None] = _anything
    texts: Callable[[Mapping[str, Any]], Texts] = _texts
    turns: Callable[[Texts], Turn] = _turns
    example: Mapping[str, Any] = field(default_factory=dict)
    verify: Callable[[Texts], Verification | None] = _anything
    reasons: bool = False  # a pair without reasoning is rejected
    again: bool = False
    several: bool = False
    suits: tuple[str, ...] = ()
    may_lack: frozenset[str] = frozenset()
    version: str | None = None
    languages: Collection[str] | None = None
    language: str = ""  # set by the registry

    def __post_init__(self) -> None:
        if taken := self.reply.keys() & {"image", "task_type", "language"}:
            raise TypeError(f"reply: {', '.join(sorted(taken))} is what the pair is about; give the field another name")
        if wrong := [name for name, kind in self.reply.items() if kind not in {str, int, bool}]:
            raise TypeError(f"reply: {', '.join(wrong)} must be str, int or bool")
        if self.again and not {"question", "answer"} <= self.reply.keys():
            raise TypeError("again: the reply needs a question and an answer")


FORMS = extensions.QUESTION_FORMS


def conversation(form: str, texts: Texts) -> list[Turn]:
    """What a model that is trained on a pair is asked and is to say, in a turn or several. form: the pair's."""
    each = FORMS.get(form).turns
    return [each(texts._replace(further=())), *(each(Texts(*turn)) for turn in texts.further)]
