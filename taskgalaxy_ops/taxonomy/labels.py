"""The rules of labels. Labels come from people and from models, and are untrusted.

A task type's path is its labels joined by ``~``, general to specific. What a model proposes has a narrow alphabet
(``check``): letters of any script, digits, blanks, hyphens, ``&``, ``'`` and parentheses, in lower case. What a person
writes keeps its spelling (``as_written``), and is refused only where it is unsafe or ambiguous (``check_written``).
Two spellings with the same ``identity`` are the same task type.
"""

from __future__ import annotations

import re
import unicodedata

from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import TaskTypePath

SEPARATOR = "~"
MAX_LABEL = 80  # characters a level
MAX_WORDS = 10  # more is a sentence
MAX_LEVELS = 4
MAX_WRITTEN = 300  # characters of a label that a person wrote

_BLANKS = " \t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_RUN_OF_BLANKS = re.compile(f"[{_BLANKS}]+")
# Quotes and hyphens that word processors and models write instead of the ASCII characters.
_PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u2010": "-", "\u2011": "-", "\u2013": "-"})
# Letters and marks that are invisible: two labels that look equal could differ by one of them.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}
_PUNCTUATION = frozenset(" -&'()")
_PATH_LIKE = re.compile(r"\.\.|[/\\]|^[a-z]:|%2[ef]", re.IGNORECASE)
_MARKUP = re.compile(r"[<>]|&#?\w+;")
_SHELL = re.compile(r"[$`|;{}*]")
_LIST_MARK = re.compile(r"^(\d+[.):]|\(\d+\)|[-*•])\s*")
_PROSE = re.compile(
    r"^(sure|certainly|sorry|of course|here (are|is)|i (can|am|will|would|cannot|can't|don't)|as an ai|none)\b"
)
_TAG = re.compile(r"<[a-z/!?|]|&#?\w+;", re.IGNORECASE)
_FENCE = "```"  # around the JSON of a request
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for one where a CSV file's cell begins with it
_MOST_MARKS = 4  # in a row: Tibetan and Hebrew have so many
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # zero-width (non-)joiner, variation selectors
_NO_JOINERS = dict.fromkeys(map(ord, _JOINERS))
_LOOSE_HYPHEN = re.compile(r"(^|[ (&])-|-([ )&]|$)|--")


def normalise(label: str) -> str:
    """The normal spelling of a label: NFC, lower case, ASCII hyphens and apostrophes, single blanks, none at the ends.

    Normalising twice changes nothing. Control characters inside a label stay, so that ``check`` rejects it.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", label).lower()).translate(_PLAIN)
    return _RUN_OF_BLANKS.sub(" ", text).strip(_BLANKS + "\r\n")


def normalise_path(path: str) -> TaskTypePath:
    """A path with each of its labels normalised."""
    return SEPARATOR.join(normalise(part) for part in path.split(SEPARATOR))


def as_written(path: str) -> TaskTypePath:
    """A path as a person spelled it: NFC, single blanks, none at a label's ends; case and all else stay."""
    parts = unicodedata.normalize("NFC", path).split(SEPARATOR)
    return SEPARATOR.join(_RUN_OF_BLANKS.sub(" ", part).strip(_BLANKS + "\r\n") for part in parts)


def identity(path: str) -> str:
    """What two spellings of the same path share: they may differ by case, blanks, kinds of hyphen and apostrophe."""
    # The quick way for most paths: only their case is to go. A label begins and ends with no blank there.
    if path.isascii() and path.isprintable() and not any(blanks in f"~{path}~" for blanks in ("  ", " ~", "~ ")):
        return path.lower()
    return normalise_path(path.translate(_NO_JOINERS))


def check(label: str) -> str | None:
    """Why a (normalised) label cannot be a level of a path, in words; None: it can."""
    if not label:
        return "empty"
    if len(label) > MAX_LABEL:
        return f"{len(label)} characters, {MAX_LABEL} at most"
    if SEPARATOR in label:
        return f"holds '{SEPARATOR}', which separates levels"
    for character in label:
        if (hidden := _hidden(character)) is not None:
            return hidden
    for pattern, reason in (
        (_LIST_MARK, "begins with a list mark"),
        (_PATH_LIKE, "looks like a path"),
        (_MARKUP, "holds markup"),
        (_SHELL, "holds characters of a shell"),
        (_PROSE, "is prose, not a label"),
    ):
        if pattern.search(label):
            return reason
    if label != normalise(label):
        return "not normalised (NFC, lower case, single blanks)"
    return _check_characters(label)


def check_path(path: str) -> str | None:
    """Why a (normalised) path is invalid, naming the label that is wrong; None: it is valid."""
    labels = path.split(SEPARATOR)
    if len(labels) > MAX_LEVELS:
        return f"{len(labels)} levels, {MAX_LEVELS} at most"
    for level, label in enumerate(labels, 1):
        if (reason := check(label)) is not None:
            return f"level {level} '{shown(label)}': {reason}"
    return None


def check_written(path: str) -> str | None:
    """Why a path that a person wrote (``as_written``) cannot be taken, naming the label that is wrong; None: it can.

    Refused is what is unsafe where labels go (terminals, pages, prompts, spreadsheets), and what would not be read back
    as it was written.
    """
    labels = path.split(SEPARATOR)
    if len(labels) > MAX_LEVELS:
        return f"{len(labels)} levels, {MAX_LEVELS} at most"
    if (reason := check_cell(path)) is not None:
        return reason
    for level, label in enumerate(labels, 1):
        if (reason := _unsafe(label)) is not None:
            return f"level {level} '{shown(label)}': {reason}"
    return None


def check_cell(text: str) -> str | None:
    """Why a text that a person wrote cannot be a cell of a CSV file; None: it can."""
    if text.startswith(_FORMULA):
        return f"begins with '{text[0]}', which a spreadsheet takes for a formula: put a word before it"
    return None


def check_about(text: str) -> str | None:
    """Why a description that a person wrote cannot be taken; None: it can."""
    return check_cell(text) or _invisible(text)


def _unsafe(label: str) -> str | None:
    if not label:
        return "empty"
    if len(label) > MAX_WRITTEN:
        return f"{len(label)} characters, {MAX_WRITTEN} at most"
    if (reason := _invisible(label)) is not None:
        return reason
    if ("<" in label or "[" in label) and neutral(label) != label:
        return "holds a token that models' chat templates obey"
    if _TAG.search(label):
        return "holds markup"
    return "holds a code fence" if _FENCE in label else None


def _invisible(text: str) -> str | None:
    """What of a text is invisible, or covers other text; None: nothing."""
    if text.isascii() and text.isprintable():
        return None
    marks = 0
    for place, character in enumerate(text):
        if (hidden := _hidden(character)) is not None and not _joins(text, place):
            return hidden
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks > _MOST_MARKS:
            return "holds a stack of combining marks"
    return None


def _joins(label: str, place: int) -> bool:
    """Whether an invisible character shapes the ones beside it: letters of Persian or Hindi, or an emoji."""
    character, before, after = label[place], label[place - 1 : place], label[place + 1 : place + 2]
    if character not in _JOINERS or not before:
        return False
    if unicodedata.category(before)[0] == "S" or before == "\ufe0f":
        return True
    if character in "\u200c\u200d" and after:
        arabic = unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"
        return arabic or unicodedata.combining(before) == 9  # a virama
    return False


def shown(text: str, limit: int = 120) -> str:
    """Untrusted text for a log, a table or a page: invisible characters are escaped, and long text is cut."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if _hidden(c) is None else f"\\u{ord(c):04x}" for c in cut)


def level(path: TaskTypePath) -> int:
    """The level of a path: 1 for the first level."""
    return path.count(SEPARATOR) + 1


def name(path: TaskTypePath) -> str:
    """The last label of a path."""
    return path.rsplit(SEPARATOR, 1)[-1]


def parent(path: TaskTypePath) -> TaskTypePath:
    """The path one level up; empty for the first level."""
    return path.rpartition(SEPARATOR)[0]


def ancestors(path: TaskTypePath) -> list[TaskTypePath]:
    """The paths above this one, first level first."""
    labels = path.split(SEPARATOR)
    return [SEPARATOR.join(labels[:depth]) for depth in range(1, len(labels))]


def join(above: TaskTypePath, label: str) -> TaskTypePath:
    """The path of a label below another path (empty: the first level)."""
    return f"{above}{SEPARATOR}{label}" if above else label


def label_text(path: TaskTypePath) -> str:
    """The text that the encoder gets for a path: its labels, the most specific first, which encoders weigh most."""
    return ", ".join(reversed(path.split(SEPARATOR)))


def _hidden(character: str) -> str | None:
    """What is wrong with a character that is invisible or changes how others are shown; None for any other."""
    category = unicodedata.category(character)
    if category == "Cf" or character in _INVISIBLE:
        return f"holds the invisible character U+{ord(character):04X}"
    if category[0] == "C" or category in ("Zl", "Zp"):
        return f"holds the control character U+{ord(character):04X}"
    return None


def _check_characters(label: str) -> str | None:
    marks = 0  # combining marks in a row: stacks of them cover other lines of text
    for character in label:
        category = unicodedata.category(character)
        marks = marks + 1 if category[0] == "M" else 0
        if category[0] not in "LM" and category != "Nd" and character not in _PUNCTUATION:
            return f"holds {character!r}: letters, digits, blanks and - & ' ( ) are allowed"
        if marks > 2:
            return "holds a stack of combining marks"
    if not label[0].isalnum():
        return "does not begin with a letter or digit"
    if not any(c.isalpha() for c in label):
        return "holds no letter"
    if _LOOSE_HYPHEN.search(label):
        return "has a hyphen that joins no words"
    if not _balanced(label):
        return "has parentheses that do not match"
    if len(label.split(" ")) > MAX_WORDS:
        return f"is prose, not a label: more than {MAX_WORDS} words"
    return None


def _balanced(label: str) -> bool:
    depth = 0
    for character in label:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0
