"""The text of `coverage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskgalaxy_ops.operations.coverage import CoverageReport
from taskgalaxy_ops.operations.coverage_against import Addition
from taskgalaxy_ops.sources.left_out import told
from taskgalaxy_ops.text import shown

_COLUMNS = ("samples", "target", "pairs", "kept", "matched")
_SUMS = ("samples", "pairs", "kept", "matched")


def coverage(found: CoverageReport) -> list[str]:
    """What there is, by source, form and branch, and then task types, worst first."""
    where = f" of {path(found.branch)}" if found.branch else ""
    lines = [
        f"taxonomy {found.taxonomy}: {found.task_types:,} task types{where}, target {found.target:,} samples: "
        f"{found.starving:,} starve, {found.flooding:,} flood",
        f"{found.images:,} images: {found.unmatched:,} fit nothing" + _open(found),
        *_sums("source", found.sources, found.total),
        *_sums("form", found.forms, {}),
    ]
    lines += ["", f"{'branch':40} {'types':>7} {'starve':>7} {'flood':>6} " + _header(_SUMS)]
    for branch in found.branches:
        numbers = " ".join(f"{getattr(branch, name):9,}" for name in _SUMS)
        head = f"{path(branch.path)[:40]:40} {branch.task_types:7,} {branch.starving:7,} {branch.flooding:6,}"
        lines.append(f"{head} {numbers}")
    if found.types:
        lines += ["", f"{_header(_COLUMNS)}  task type, worst first"]
        for each in found.types:
            numbers = " ".join(f"{getattr(each, name):9,}" for name in _COLUMNS)
            lines.append(f"{numbers}  {path(each.path)}" + (f" ({each.why})" if each.why else ""))
    return lines


def against(found: Addition, most: int | None) -> list[str]:
    """What a pile would add, and ``most`` of the starving task types that it reaches, worst first."""
    rejected = ", ".join(f"{number:,} {reason}" for reason, number in found.rejected.items())
    lines = [
        f"{shown(found.location)}: {found.files:,} files, {found.new:,} new images, {found.known:,} known or taken down"
        + (f", rejects: {rejected}" if rejected else ""),
        *([passed_by] if (passed_by := told(found.left_out)) else []),
        f"near {found.reached:,} of {found.starving:,} task types that starve, of which {found.filled:,} are expected "
        f"to reach their target; {found.matches:,} matches in all",
        "nothing was registered, and no model was asked",
    ]
    if found.types:
        lines += ["", f"{_header(('samples', 'target', 'images', 'expected'))}  task type, worst first"]
    for each in found.types[:most]:
        numbers = f"{each.samples:9,} {each.target:9,} {each.images:9,} {each.expected:9,.1f}"
        lines.append(f"{numbers}  {path(each.path)}")
    if most is not None and len(found.types) > most:
        lines.append(f"and {len(found.types) - most:,} more (-n)")
    return lines


def path(task_type: str) -> str:
    """A task type's path as people read it."""
    return shown(task_type.replace("~", " › "))


def _open(found: CoverageReport) -> str:
    more = f"; {found.waiting:,} more have no embedding yet" if found.waiting else ""
    return more + (f"; {found.pending:,} units have no answer yet and are not counted" if found.pending else "")


def _sums(what: str, parts: Mapping[str, Mapping[str, int]], total: Mapping[str, int]) -> list[str]:
    if not parts:
        return []
    rows = [*parts.items(), *([("all", total)] if total else [])]
    body = []
    for name, sums in rows:
        numbers = " ".join(f"{sums[each]:9,}" if each in sums else 9 * " " for each in _SUMS)
        body.append(f"{shown(name)[:40]:40} {numbers}".rstrip())
    return ["", f"{what:40} {_header(_SUMS)}", *body]


def _header(names: Sequence[str]) -> str:
    return " ".join(f"{name:>9}" for name in names)
