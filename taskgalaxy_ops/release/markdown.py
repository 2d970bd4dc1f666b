"""Markdown out of text that nobody vouches for: labels, questions, names of sources, licences.

Whatever such a text holds, it shows as itself: no HTML, link, picture, mention, formula or broken table. Marks that
mean something inside a line become character references, which Markdown never takes for markup; a text is never put
at the start of a line, where others would. Renderers that make links of bare addresses look behind the references,
so addresses are cut by an invisible space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from taskgalaxy_ops.text import clean

_ZERO_WIDTH_SPACE = "\u200b"
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=[@#])", re.IGNORECASE)
_ACTIVE = re.compile(r"[&<>\\`*_\[\]|~$#@:]")


def text(value: object, limit: int | None = None) -> str:
    """One line of Markdown that shows ``value`` as plain text, cut to ``limit`` characters."""
    line = " ".join(clean(str(value)).split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1] + "…"
    return _ACTIVE.sub(lambda match: f"&#{ord(match.group())};", _ADDRESS.sub(_ZERO_WIDTH_SPACE, line))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines. Cells are Markdown already."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)] + [""]
