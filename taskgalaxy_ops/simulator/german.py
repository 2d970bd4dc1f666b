"""German as simulated models know it: questions of a few task types, and the words of their answers.

Teacher and judges share these texts and nothing else; nothing here looks at an image. Whoever reads one looks for the
answer as if it had been asked in English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_SHAPES = {"circle": "Kreis", "rectangle": "Rechteck", "triangle": "Dreieck"}
_THE = {"circle": "der Kreis", "rectangle": "das Rechteck", "triangle": "das Dreieck"}
_COLOURS = {
    "black": "schwarz",
    "white": "weiß",
    "grey": "grau",
    "red": "rot",
    "orange": "orange",
    "yellow": "gelb",
    "green": "grün",
    "teal": "türkis",
    "blue": "blau",
    "purple": "lila",
    "pink": "rosa",
    "brown": "braun",
}
_PLACES = {
    "upper left": "oben links",
    "top": "oben",
    "upper right": "oben rechts",
    "left": "links",
    "centre": "in der Mitte",
    "right": "rechts",
    "lower left": "unten links",
    "bottom": "unten",
    "lower right": "unten rechts",
}
_AS_IT_IS: Mapping[str, str] = {}  # numbers, and what is read

# By task type: the question, and the answer's words by their English ones.
_QUESTIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "shapes & patterns~shape recognition~shape naming": ("Welche geometrische Form ist zu sehen?", _SHAPES),
    "shapes & patterns~shape recognition~shape colour identification": ("Welche Farbe hat {shape}?", _COLOURS),
    "shapes & patterns~shape recognition~shape position": ("In welchem Teil des Bildes liegt {shape}?", _PLACES),
    "shapes & patterns~shape recognition~shape counting": ("Wie viele Formen sind auf dem Bild?", _AS_IT_IS),
    "shapes & patterns~shape recognition~corner counting": ("Wie viele Ecken hat die Form?", _AS_IT_IS),
    "colour~main colours~background colour identification": ("Welche Farbe hat der Hintergrund?", _COLOURS),
    "ocr~printed text ocr~title reading": ("Wie lautet der Titel, der oben steht?", _AS_IT_IS),
    "ocr~printed text ocr~largest text reading": ("Welcher Text ist am größten gedruckt?", _AS_IT_IS),
    "ocr~printed text ocr~first line reading": ("Was steht in der obersten Zeile?", _AS_IT_IS),
    "ocr~printed text ocr~last line reading": ("Was steht in der untersten Zeile?", _AS_IT_IS),
    "ocr~printed text ocr~text line counting": ("Wie viele Textzeilen hat das Bild?", _AS_IT_IS),
    "documents~receipts & invoices~receipt total reading": ("Wie hoch ist die Summe auf dem Beleg?", _AS_IT_IS),
}


class Asked(NamedTuple):
    """A German question: its parameters in English, and the English of an answer."""

    params: dict[str, str]
    words: Mapping[str, str]  # English by German

    def english(self, answer: str) -> str:
        """An answer in English; one that is no word of the kind is as it is, and so will not be right."""
        return self.words.get(answer.strip(), answer) if self.words else answer


def put(path: str, params: Mapping[str, str], answers: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """The question of a task type and answers to it in German; None where there is none, or a word is not known."""
    if path not in _QUESTIONS:
        return None
    text, words = _QUESTIONS[path]
    said = [words.get(answer) if words else answer for answer in answers]
    known = [each for each in said if each is not None]
    if len(known) < len(answers) or any(name != "shape" or value not in _THE for name, value in params.items()):
        return None
    return text.format(**{name: _THE[value] for name, value in params.items()}), known


def read(path: str, question: str) -> Asked | None:
    """A question of a task type in German; None: it is none."""
    if path not in _QUESTIONS:
        return None
    text, words = _QUESTIONS[path]
    found = re.fullmatch(re.escape(text).replace(r"\{shape\}", f"(?P<shape>{'|'.join(_THE.values())})"), question)
    if found is None:
        return None
    shapes = {german: english for english, german in _THE.items()}
    params = {name: shapes[value] for name, value in found.groupdict().items()}
    return Asked(params, {german: english for english, german in words.items()})
