"""Markdown of untrusted text: labels, questions, names of sources, licences.

Any such text is shown literally: it cannot become HTML, a link, a picture, a mention or a formula, or break a table.
Characters that are markup inside a line become character references, which Markdown never reads as markup; a text is
never put at the start of a line, where other characters would be markup. Renderers that turn bare addresses into links
resolve the references first; addresses are therefore broken by an invisible space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from taskgalaxy_ops.text import clean

_ZERO_WIDTH_SPACE = "\u200b"
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=[@#])", re.IGNORECASE)
_CODE = re.compile(r"(`[^`\n]+`)")
_ACTIVE = re.compile(r"[&<>\\`*_\[\]|~$#@:]")


def text(value: object, limit: int | None = None) -> str:
    """One line of Markdown that shows ``value`` as plain text, cut to ``limit`` characters."""
    line = " ".join(clean(str(value)).split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1] + "…"
    return _ACTIVE.sub(lambda match: f"&#{ord(match.group())};", _ADDRESS.sub(_ZERO_WIDTH_SPACE, line))


def with_code(words: str) -> str:
    """The same of words of a program, in which backticks mean code."""
    parts = _CODE.split(words)
    shown = (
        part if number % 2 else re.sub(r"\S(?:.*\S)?", lambda found: text(found.group()), part, flags=re.DOTALL)
        for number, part in enumerate(parts)
    )
    return "".join(shown)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines, with a blank one at the end. header, rows: cells that are Markdown already."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)] + [""]
