"""Makes untrusted text fit to be stored (``clean``), printed on one line (``shown``) or compared; writes times."""

from __future__ import annotations

import re
import time
import unicodedata
from contextlib import suppress

_END = re.compile(r"[\s?.!。]+$")
_AMOUNT = re.compile(r"(?:(?<![\w.])[-−])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def clean(text: str) -> str:
    """The text without control, bidirectional-override and other invisible characters, in NFC, its ends stripped.

    Newlines and tabs are kept.
    """
    visible = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})
    return unicodedata.normalize("NFC", visible).strip()


def shown(text: object) -> str:
    """The text on one line, without characters that a terminal would obey."""
    return " ".join(clean(str(text)).split())


def script(letter: str) -> str:
    """A letter's script: LATIN, CYRILLIC, CJK …"""
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "?").split(" ", 1)[0]


def normal_question(question: str) -> str:
    """A question without differences of compatibility forms, case, blanks and final marks: equal ones ask the same."""
    return _END.sub("", " ".join(unicodedata.normalize("NFKC", question).casefold().split()))


def normal_answer(answer: str) -> str:
    """What an answer says, whatever its case, marks, articles and the writing of a number: equal ones say the same."""
    marked = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer.casefold())
    words = [word for word in re.findall(r"[^\s.,;:!?\"'()]+(?:[.,]\d+)*", marked) if word not in _ARTICLES]
    return " ".join(map(_plain, words)) or answer


def numbers_in(text: str) -> list[float]:
    """The numbers in a text, in their order; commas may group their thousands."""
    return [float(found.replace(",", "").replace("−", "-")) for found in _AMOUNT.findall(text)]


def _plain(word: str) -> str:
    if word in _NUMBERS:
        return str(_NUMBERS.index(word))
    with suppress(ValueError, OverflowError):
        return f"{float(word):g}"
    return word


def dollars(value: float) -> str:
    """An amount in USD, to the cent; one below a dollar to the hundredth of a cent."""
    return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def moment(at: float) -> str:
    """A time (Unix seconds), to the minute, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
