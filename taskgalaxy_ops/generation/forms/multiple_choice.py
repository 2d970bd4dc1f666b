"""A question with two to four options, of which one is right; the answer is its letter.

The teacher gives the right answer and the wrong ones apart, so that it cannot prefer a place; the order of options is
drawn by hash. Wrong options must be unlike the right one and each other: what differs in case, marks, articles or the
writing of a number alone is sent back. That they are wrong is the judges' to say: the question says that one is right,
so that one with two makes no sense. An answer is verified by comparing letters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.generation.forms.verification import Verification
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.request import ANY_TEXT, MalformedReplyError
from taskgalaxy_ops.text import normal_answer

WRONG = ("wrong_1", "wrong_2", "wrong_3")
LETTERS = "ABCD"
CLOSING = "Answer with the letter of the one right option."
CLOSINGS = {
    "": CLOSING,
    "de": "Antworte mit dem Buchstaben der einen richtigen Antwort.",
    "es": "Responde con la letra de la única opción correcta.",
    "fr": "Réponds par la lettre de la seule bonne réponse.",
    "it": "Rispondi con la lettera dell'unica opzione corretta.",
    "nl": "Antwoord met de letter van het enige juiste antwoord.",
    "pt": "Responda com a letra da única opção correta.",
}

_LONGEST = 300  # characters of an option
_LABEL = re.compile(r"^\s*\(?[A-Da-d][.):]\s", re.MULTILINE)
_OF_OTHERS = re.compile(r"\b(all|none|both|neither|any) of (the|these|them)\b|\ball options\b", re.IGNORECASE)


def _options(reply: Mapping[str, Any]) -> list[str]:
    """The right one first."""
    return [reply["answer"], *(reply[name] for name in WRONG if reply[name])]


def _check(reply: Mapping[str, Any]) -> None:
    options = _options(reply)
    if len(options) < 2:
        raise MalformedReplyError("`wrong_1` must be an answer that is wrong")
    if ANY_TEXT in (reply["question"], *options):
        raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
    if len(_LABEL.findall(reply["question"])) > 1:
        raise MalformedReplyError("`question` must not list the options: they are added")
    for option in options:
        if "\n" in option or len(option) > _LONGEST:
            raise MalformedReplyError(f"an option must be one line of at most {_LONGEST} characters")
        if _OF_OTHERS.search(option):
            raise MalformedReplyError("an option must not speak of the others: their order is drawn")
    if all(map(_LABEL.match, options)):
        raise MalformedReplyError("options must not begin with letters: they are added")
    said = [normal_answer(option) for option in options]
    if twice := next((option for option, one in zip(options, said, strict=True) if said.count(one) > 1), None):
        raise MalformedReplyError(f"options must differ in what they say: `{twice[:60]}` is there twice")


def _texts(reply: Mapping[str, Any]) -> Texts:
    question, answer = reply["question"], reply["answer"]
    if not question or not answer:
        return Texts(question, answer)
    options = _options(reply)
    shuffled = sorted(options, key=lambda option: draw("option", reply["image"], reply["task_type"], option))
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, shuffled, strict=False)]
    return Texts("\n".join([question, *lines, CLOSINGS[reply["language"]]]), LETTERS[shuffled.index(answer)])


MULTIPLE_CHOICE = QuestionForm(
    reply={"question": str, "answer": str, **dict.fromkeys(WRONG, str)},
    check=_check,
    texts=_texts,
    verify=lambda _: Verification("choice"),
    suits=("!image description",),
    version="1",
    languages=CLOSINGS.keys() - {""},
)
