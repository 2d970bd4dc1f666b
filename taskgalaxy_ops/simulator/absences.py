"""Questions that an image does not answer, as simulated models see them: what may be missing, and which answers say so.

Teacher and judges share these texts and nothing else; nothing here looks at an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from taskgalaxy_ops.simulator import templates
from taskgalaxy_ops.simulator.templates import Template

SAID = "unanswerable"  # what every answer that says so comes to, whatever its words

# By parameter of a question: how what it names is called where it is missing, and what one might look for.
NAMED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "shape": ("a {}", ("circle", "rectangle", "triangle")),
    "item": ("an item called “{}”", ("Oat milk", "Light bulbs", "Cat food", "Olive oil", "Orange juice")),
    "field": ("a field “{}”", ("Fax", "Passport number", "Blood group", "Second nationality", "Vehicle plate")),
    "dish": ("a dish called “{}”", ("Lobster bisque", "Tiramisu", "Lentil curry", "Cheese fondue", "Waffles")),
    "row": ("a row “{}”", ("Reykjavik", "Valencia", "Zebra", "Quarterly review", "Unassigned")),
    "column": ("a column “{}”", ("Weight", "Discount", "Remarks", "Warranty", "Last year")),
    "category": ("a bar labelled “{}”", ("Reykjavik", "Valencia", "Zinc", "Quinoa", "Unassigned")),
    "text": ("the text “{}”", ("Fire exit", "Opening hours", "No smoking", "Made in Japan", "Keep refrigerated")),
}

# By first-level node: questions that may be asked instead where those of a task type name nothing, and what is missing.
_OCR = "ocr~number & date ocr"
_CONTACT = "ocr~contact detail ocr"
_SHAPES = "shapes & patterns~shape recognition"
SIBLINGS: Mapping[str, Mapping[str, str]] = {
    "ocr": {
        f"{_OCR}~date reading": "any date",
        f"{_OCR}~clock time reading": "any time of day",
        f"{_OCR}~price reading": "any price",
        f"{_OCR}~percentage reading": "any percentage",
        f"{_CONTACT}~phone number extraction": "any telephone number",
        f"{_CONTACT}~email address extraction": "any e-mail address",
        f"{_CONTACT}~web address extraction": "any web address",
    },
    "shapes & patterns": {f"{_SHAPES}~shape colour identification": "", f"{_SHAPES}~shape position": ""},
}
# Whoever is asked these says whether something is there: that is an answer.
ANSWERED = frozenset({"shape presence check", "false premise detection", "visual claim verification"})

_SAYS = re.compile(r"\bdoes not show\b|\bdid not find it in the image\b|\bcannot be answered from this image\b")


def said(answer: str) -> bool:
    """Whether an answer says that the image does not answer the question."""
    return _SAYS.search(answer) is not None


def names_it(answer: str, params: Mapping[str, str]) -> bool:
    """Whether an answer that says so speaks of what the question names, or only of what is asked about."""
    return "what is asked about" in answer.casefold() or any(value in answer for value in params.values())


def of(path: str, question: str) -> Iterator[tuple[Template, dict[str, str]]]:
    """The task types that a question about one may be of, that one first, each with the question's parameters."""
    known = templates.load()
    for each in (path, *SIBLINGS.get(path.split("~", 1)[0], ())):
        if each in known and (params := known[each].params(question)) is not None:
            yield known[each], params
