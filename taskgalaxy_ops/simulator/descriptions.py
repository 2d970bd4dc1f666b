"""Detailed descriptions as simulated models see them: statements, each the answer to a task type's question.

Teacher and judges share these texts and nothing else; nothing here looks at an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

ASKED = "description"  # what every question for one comes to, whatever its words
MOST = 9  # statements in a description
_ASKS = re.compile(r"\b(in detail|thoroughly|detailed description)\b|^Describe the image so|\bdescribe everything\b")

# By task type: its answer as a statement, in the order in which a description has them.
STATEMENTS: Mapping[str, str] = {
    "image quality & photography~composition~image orientation": "The image is in {answer} format.",
    "image quality & photography~photographic technique~photo or drawing": "It is a {answer}.",
    "documents~document understanding~document type classification": "The document is of this kind: {answer}.",
    "charts & tables~chart text~chart type classification": "It shows a {answer}.",
    "colour~main colours~background colour identification": "Its background is {answer}.",
    "shapes & patterns~shape recognition~shape naming": "One shape stands on it, a {answer}.",
    "shapes & patterns~shape recognition~shape colour identification": "The {shape} is {answer}.",
    "shapes & patterns~shape recognition~shape size estimation": "It fills {answer} than a quarter of the image.",
    "spatial relations~position in the image~quadrant of object": "The {object} lies in the {answer} quadrant.",
    "object recognition~things of daily life~main object identification": "The main object is of this kind: {answer}.",
    "charts & tables~chart text~chart title reading": "The chart is titled “{answer}”.",
    "charts & tables~bar charts~bar counting": "The number of its bars is {answer}.",
    "charts & tables~bar charts~tallest bar identification": "The highest bar is that of “{answer}”.",
    "ocr~printed text ocr~title reading": "At the top stands the title “{answer}”.",
    "ocr~printed text ocr~first line reading": "The topmost line of text reads “{answer}”.",
    "detection & localisation~referring expression grounding": "Directly below “{text}” follows “{answer}”.",
    "spatial relations~position in the image~text position": "The text “{text}” stands in the {answer} of the image.",
    "documents~receipts & invoices~receipt total reading": "The total to pay is {answer}.",
    "charts & tables~tables~table header reading": "The columns of the table are called “{answer}”.",
    "ocr~printed text ocr~last line reading": "The bottom line reads “{answer}”.",
    "colour~main colours~second most common colour": "The colour that comes second by area is {answer}.",
    "image quality & photography~exposure & tone~brightness level": "Its overall brightness is {answer}.",
    "colour~colour properties~warm or cool palette": "Its colours are mostly {answer}.",
}


class Stated(NamedTuple):
    """A statement, taken apart."""

    path: str  # the task type that it answers
    params: dict[str, str]
    answer: str


def asked(question: str) -> bool:
    """Whether a question asks for a description."""
    return "\n" not in question and _ASKS.search(question) is not None


def state(path: str, params: Mapping[str, str], answer: str) -> str:
    """An answer as a statement."""
    return STATEMENTS[path].format(**params, answer=answer)


def read(description: str) -> list[Stated] | None:
    """The statements of a description; None: something in it is none."""
    found, at = [], 0
    while at < len(description):
        for path, pattern in _patterns().items():
            if match := pattern.match(description, at):
                said = match.groupdict()
                found.append(Stated(path, said, said.pop("answer")))
                at = match.end()
                break
        else:
            return None
    return found or None


@lru_cache(maxsize=1)
def _patterns() -> dict[str, re.Pattern[str]]:
    return {
        path: re.compile(_QUOTED.sub(rf"“(?P<\1>{_ANY}+?)”", _named(text)) + r"(?:\s+|$)")
        for path, text in STATEMENTS.items()
    }


# A text stands in quotation marks; an answer without them ends with the sentence, and a name is one word.
_ANY = r"[^“”]"
_QUOTED = re.compile(r"“\\{(\w+)\\}”")


def _named(text: str) -> str:
    def value(name: re.Match[str]) -> str:
        return rf"(?P<{name[1]}>{r'(?:[^.“”]|[.](?=[0-9]))+?' if name[1] == 'answer' else r'[a-z]+'})"

    return re.sub(r"(?<!“)\\{(\w+)\\}", value, re.escape(text))
