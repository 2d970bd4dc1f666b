"""A question that is answered by yes or no, both as often.

Teachers prefer questions whose answer is yes. So they are asked for two of a kind, one that is answered by yes and one
by no, and a hash of image and task type draws which becomes the pair: one of the questions that are asked of many
images is not always answered alike. An answer is verified by comparing one word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.generation.forms.verification import exact
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.request import ANY_TEXT, MalformedReplyError
from taskgalaxy_ops.text import normal_question

YES, NO = "question_yes", "question_no"
SAID = {
    "": ("Yes", "No"),
    "de": ("Ja", "Nein"),
    "es": ("Sí", "No"),
    "fr": ("Oui", "Non"),
    "it": ("Sì", "No"),
    "nl": ("Ja", "Nee"),
    "pl": ("Tak", "Nie"),
    "pt": ("Sim", "Não"),
    "ru": ("Да", "Нет"),
    "uk": ("Так", "Ні"),
}


def _check(reply: Mapping[str, Any]) -> None:
    if ANY_TEXT in (reply[YES], reply[NO]):
        raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
    if normal_question(reply[YES]) == normal_question(reply[NO]):
        raise MalformedReplyError(f"`{YES}` and `{NO}` must be two questions, since their answers differ")


def _texts(reply: Mapping[str, Any]) -> Texts:
    yes, no = reply[YES], reply[NO]
    if not yes and not no:
        return Texts("", "")
    first = draw("yes or no", reply["image"], reply["task_type"]) < 0.5
    said_yes, said_no = SAID[reply["language"]]
    return Texts(yes, said_yes) if not no or (yes and first) else Texts(no, said_no)


YES_NO = QuestionForm(
    reply={YES: str, NO: str},
    check=_check,
    texts=_texts,
    verify=exact,
    suits=("!image description",),
    version="1",
    languages=SAID.keys() - {""},
)
