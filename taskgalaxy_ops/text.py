"""Untrusted text, made fit to be kept (``clean``) or to be printed on one line (``shown``)."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Model text without control, bidirectional-override and other invisible characters, NFC, ends stripped."""
    seen = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})
    return unicodedata.normalize("NFC", seen).strip()


def shown(text: object) -> str:
    """Untrusted text on one line, without what a terminal would act upon."""
    return " ".join(clean(str(text)).split())
