"""Makes untrusted text fit to be stored (``clean``), printed on one line (``shown``) or compared; writes times."""

from __future__ import annotations

import re
import time
import unicodedata

_END = re.compile(r"[\s?.!。]+$")


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


def dollars(value: float) -> str:
    """An amount in USD, to the cent; one below a dollar to the hundredth of a cent."""
    return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def moment(at: float) -> str:
    """A time (Unix seconds), to the minute, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
