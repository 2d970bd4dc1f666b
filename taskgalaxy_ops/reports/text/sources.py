"""The text of `sources` and of `sources preview`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from taskgalaxy_ops.sources.left_out import told
from taskgalaxy_ops.sources.overview import SourceSummary
from taskgalaxy_ops.sources.preview import Preview, PreviewFile
from taskgalaxy_ops.text import moment, shown

_LINE = 200  # characters of a text of the context


def listed(found: Sequence[SourceSummary]) -> list[str]:
    """A source a line: name, kind, images, rejects by reason, when a scan last found something new, location."""
    lines = []
    for each in found:
        state = "not registered yet" if each.images is None else f"{each.images:,} images"
        state += "" if each.copied else ", not copied"
        if each.rejects:
            state += f", {sum(each.rejects.values()):,} rejects ({_by_reason(each)})"
        if each.scanned is not None:
            state += f", changed {moment(each.scanned)} UTC"
        lines.append(f"{shown(each.source)}  {each.kind}  {state}  {shown(each.location)}")
        lines += [f"  {passed_by}"] if (passed_by := told(each.left_out)) else []
    return lines or ["no source yet: name one in the settings under `sources`"]


def _by_reason(each: SourceSummary) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in each.rejects.items())


def previewed(found: Preview) -> list[str]:
    """The first files of a source, and what a scan would leave out."""
    counted = f"{found.files - found.broken:,} pages" if found.kind == "documents" else f"{found.files:,} files"
    lines = [f"{shown(found.source)}: {counted} of {found.kind} at {shown(found.location)}; the first are"]
    lines += [line for each in found.first for line in (f"  {_file(each)}", *_context(each))]
    if found.broken:
        lines.append(f"{found.broken:,} cannot be read:")
        lines += [f"  {_file(each)}" for each in found.first_broken]
        more = found.broken - len(found.first_broken)
        lines += [f"  … and {more:,} more"] if more else []
    lines += [passed_by] if (passed_by := told(found.left_out)) else []
    return [*lines, "Nothing was registered."]


def _context(each: PreviewFile) -> list[str]:
    said: dict[str, str] = json.loads(each.context or "{}")
    return [f"    {shown(name)}: {_shortened(text)}" for name, text in said.items()]


def _shortened(text: str) -> str:
    """A text on one line, of a length that a person reads at a glance."""
    line = shown(text)
    return line if len(line) <= _LINE else f"{line[:_LINE]} …"


def _file(each: PreviewFile) -> str:
    said = [each.image or f"REJECT {each.reject}", each.licence, each.attribution, each.origin]
    return f"{shown(each.file)}  {'  '.join(shown(text) for text in said if text)}"
