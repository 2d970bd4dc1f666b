"""The card of a release: README.md with the Hugging Face header. Holds no time, cost or version number.

A section is a function from the selection to lines of Markdown, with a blank one at the end; no lines: it has nothing
to say. Text of models and sources passes through ``markdown.text``.
"""

from __future__ import annotations

from collections.abc import Callable

from taskgalaxy_ops.release.card.breadth import DRAWINGS, drawings, funnel, taxonomy
from taskgalaxy_ops.release.card.contents import intro, loading, pictures, shown_samples, warnings, without_references
from taskgalaxy_ops.release.card.header import header, header_lines
from taskgalaxy_ops.release.card.judges import judges
from taskgalaxy_ops.release.card.limits import limits
from taskgalaxy_ops.release.card.making import licences, making
from taskgalaxy_ops.release.card.page import PAGE, page
from taskgalaxy_ops.release.decontaminate.section import section as leaks
from taskgalaxy_ops.release.select import Selection

__all__ = ["DRAWINGS", "PAGE", "card", "drawings", "header_lines", "page", "without_references"]

_SECTIONS: tuple[Callable[[Selection], list[str]], ...] = (
    warnings,
    intro,
    loading,
    shown_samples,
    pictures,
    funnel,
    taxonomy,
    judges,
    leaks,
    making,
    licences,
    limits,
)


def card(plan: Selection) -> bytes:
    """The card as README.md, UTF-8."""
    lines = [*header_lines(header(plan)), *(line for section in _SECTIONS for line in section(plan))]
    return "\n".join(lines).encode()
