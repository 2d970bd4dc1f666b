"""A question that the image does not answer, since it lacks what is asked about; the answer says so.

The teacher asks and names what is missing; the sentence around it is drawn by hash from a few, so that a model that is
trained on it learns to look, and not one string. That the image does lack it is the judges' to say. An answer is
verified by whether it says that there is none (``declines``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.request import ANY_TEXT, MalformedReplyError

WORDINGS = (
    "The image does not show {missing}, so this cannot be answered.",
    "This cannot be answered, since the image does not show {missing}.",
    "That is not in the image: it does not show {missing}.",
    "There is no telling from this image, which does not show {missing}.",
    "I looked for {missing} and did not find it in the image, so the question has no answer here.",
    "Nothing in the image answers this, since it does not show {missing}.",
)

# In other languages what is missing stands behind a colon, in whatever case the teacher wrote it.
WORDINGS_IN = {
    "": WORDINGS,
    "de": (
        "Das lässt sich nicht beantworten. Auf dem Bild fehlt: {missing}.",
        "Die Frage lässt sich mit diesem Bild nicht beantworten; es fehlt: {missing}.",
        "Auf dem Bild ist nicht zu sehen: {missing}. Darum lässt sich das nicht beantworten.",
    ),
    "es": (
        "No se puede responder. En la imagen falta: {missing}.",
        "Con esta imagen no se puede responder a la pregunta; falta: {missing}.",
    ),
    "fr": (
        "On ne peut pas répondre. Il manque sur l'image : {missing}.",
        "L'image ne permet pas de répondre à la question ; il y manque : {missing}.",
    ),
}

_LONGEST = 150  # characters of what is missing
_DECLINES = re.compile(
    r"\b(can(no|')t|cannot|could not|impossible to|no way to|unable to) (be )?(answer|tell|say|see|determin|know|read)"
    r"|\b(does not|doesn't|do not|don't) (show|say|contain|include|depict)|\bno(thing)? (telling|answer)"
    r"|nicht beantworten|\bne peut pas répondre|\bne permet pas de répondre|\bno se puede responder"
    r"|\b(is|are) (no|not|nowhere) .{0,60}\b(image|picture|photo|shown|visible|there)\b|\bunanswerable\b",
    re.IGNORECASE,
)
_WHETHER = re.compile(
    r"(is|are|was|were) there\b|(can|do) you see\b"
    r"|(does|do) (the|this) (image|picture|photo\w*|page|document) (show|contain|include|have)\b",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"(A|An|Any|The)(?= )")


def declines(answer: str) -> bool:
    """Whether an answer says that the image does not answer the question."""
    return _DECLINES.search(answer.replace("’", "'")) is not None


def _check(reply: Mapping[str, Any]) -> None:
    question, missing = reply["question"], reply["missing"]
    if ANY_TEXT in (question, missing):
        raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
    if not missing:
        raise MalformedReplyError("`missing` must name what the image does not show")
    if "\n" in missing or len(missing) > _LONGEST or re.search(r"\w{4,}[.!?]\s", missing) or _DECLINES.search(missing):
        raise MalformedReplyError(
            f"`missing` must be the thing alone, such as `a price`, in {_LONGEST} characters: a sentence is made of it"
        )
    if _WHETHER.match(question):
        raise MalformedReplyError("`question` must not ask whether something is there: no would be its answer")


def _texts(reply: Mapping[str, Any]) -> Texts:
    question, missing = reply["question"], reply["missing"].rstrip(" .")
    if not question or not missing:
        return Texts(question, missing)
    missing = _ARTICLE.sub(lambda article: article[0].lower(), missing, count=1)
    wordings = WORDINGS_IN[reply["language"]]
    wording = wordings[int(draw("unanswerable", reply["image"], reply["task_type"]) * len(wordings))]
    return Texts(question, wording.format(missing=missing))


UNANSWERABLE = QuestionForm(
    reply={"question": str, "missing": str},
    check=_check,
    texts=_texts,
    suits=("!image description",),
    version="1",
    languages=WORDINGS_IN.keys() - {""},
)
