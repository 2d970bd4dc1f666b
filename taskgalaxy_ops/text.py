"""Makes untrusted text fit to be stored (``clean``) or to be printed on one line (``shown``)."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """The text without control, bidirectional-override and other invisible characters, in NFC, its ends stripped.

    Newlines and tabs are kept.
    """
    visible = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})
    return unicodedata.normalize("NFC", visible).strip()


def shown(text: object) -> str:
    """The text on one line, without characters that a terminal would obey."""
    return " ".join(clean(str(text)).split())
