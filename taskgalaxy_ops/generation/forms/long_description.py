"""A detailed description of the image, several sentences long; how it is asked for is drawn by hash from a few.

The teacher describes what it sees; what is too short, too long, a list or mostly guesses is sent back. Judges reject a
description that states anything false. Nothing but judges can verify one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.request import ANY_TEXT, MalformedReplyError

QUESTIONS = (
    "Describe this image in detail.",
    "Give a detailed description of what the image shows.",
    "What does this image show? Describe it thoroughly.",
    "Describe the image so that someone who cannot see it could picture it.",
    "Write a detailed description of this picture.",
    "Look closely at the image and describe everything that can be seen in it.",
)

QUESTIONS_IN = {
    "": QUESTIONS,
    "de": (
        "Beschreibe dieses Bild ausführlich.",
        "Was ist auf dem Bild zu sehen? Beschreibe es genau.",
        "Beschreibe das Bild so, dass man es sich vorstellen kann, ohne es zu sehen.",
    ),
    "es": ("Describe esta imagen con detalle.", "¿Qué muestra la imagen? Descríbela a fondo."),
    "fr": ("Décris cette image en détail.", "Que montre l'image ? Décris-la précisément."),
}

_LEAST, _MOST = 120, 3000  # characters
_SENTENCES = 3
_GUESSES = 2  # at most
_END = re.compile(r"[.!?…][\"”’)]*(?=\s|$)|[。！？।]")
_GUESS = re.compile(
    r"\b(maybe|perhaps|possibly|presumably|probably|might|could be|may be|(seem|appear)(s|ed)? to|i (think|guess))\b",
    re.IGNORECASE,
)
_ITEM = re.compile(r"^\s*([-*•]|\d+[.)])\s", re.MULTILINE)


def _check(reply: Mapping[str, Any]) -> None:
    text = reply["description"]
    if text == ANY_TEXT:
        raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
    if len(text) < _LEAST or len(_END.findall(text)) < _SENTENCES:
        raise MalformedReplyError(f"`description` must have at least {_SENTENCES} sentences and {_LEAST} characters")
    if len(text) > _MOST:
        raise MalformedReplyError(f"`description` must have at most {_MOST} characters")
    if len(_ITEM.findall(text)) > 1:
        raise MalformedReplyError("`description` must be running text, and no list")
    if len(_GUESS.findall(text)) > _GUESSES:
        raise MalformedReplyError("`description` must say what is seen: it holds more guesses than one can trust")


def _texts(reply: Mapping[str, Any]) -> Texts:
    if not reply["description"]:
        return Texts("", "")
    asked = QUESTIONS_IN[reply["language"]]
    return Texts(asked[int(draw("description", reply["image"], reply["task_type"]) * len(asked))], reply["description"])


LONG_DESCRIPTION = QuestionForm(
    reply={"description": str},
    check=_check,
    texts=_texts,
    suits=("image description", "scene understanding", "documents~document understanding", "*~chart type *"),
    version="1",
    languages=QUESTIONS_IN.keys() - {""},
)
