"""The text of `release mix`."""

from __future__ import annotations

from taskgalaxy_ops.release.mixing.mix import Mixed, MixedPart
from taskgalaxy_ops.reports.text.judges import table

_HEADER = ("part", "kind", "rows", "usable", "taken", "share", "weight")


def mixed(found: Mixed) -> list[str]:
    """What went into a mixture, what was left out and why, and loudly what is unknown or lacking."""
    lines = [
        f"mixture in {found.folder}: {found.samples:,} samples, {found.images:,} images, as {', '.join(found.formats)}",
        *table(_HEADER, [_row(part) for part in found.parts]),
    ]
    for part in found.parts:
        if part.licences:
            licences = ", ".join(f"{name} ({rows:,})" for name, rows in part.licences.items())
            lines.append(f"  {part.name}: licences {licences}")
        lines += [f"  {part.name}: {number:,} rows left out: {why}" for why, number in part.left_out.items()]
        if part.neutralised:
            lines.append(f"  {part.name}: {part.neutralised:,} rows with special tokens, which are written ‹so›")
        if part.repeated:
            lines.append(f"  {part.name}: {part.repeated:,} of its rows are there once more, as `repeat` says")
        if part.short > 0:
            lines.append(
                f"  WARNING: {part.name} has {part.taken:,} usable rows; its weight asks for {part.wanted:,}. The "
                "mixture is smaller by as many: set `repeat: true` there, fewer `samples`, or another weight."
            )
    lines += [
        f"  WARNING: UNKNOWN LICENCE: nobody states under which licence {number:,} rows of {name} are"
        for name, number in found.unknown_licence.items()
    ]
    if any(part.kind == "base" for part in found.parts):
        lines.append("  Base data are as their makers published them: not searched for benchmark items or repeats.")
    return lines


def _row(part: MixedPart) -> tuple[str, ...]:
    numbers = (f"{part.rows:,}", f"{part.usable:,}", f"{part.taken:,}", f"{part.share:.1%}", f"{part.weight:g}")
    return (part.name, part.kind, *numbers)
