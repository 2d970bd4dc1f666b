"""The page of `judges`: the text's tables, and the estimates as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.drawing.svg import esc, fitting
from taskgalaxy_ops.operations.judges import JudgeReport
from taskgalaxy_ops.release.agreement import Interval
from taskgalaxy_ops.release.judge_fit import share as interval
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.reports.text import judges as text

_LEFT, _WIDE, _ROW = 190, 560, 24  # pixels: the names, the scale, a row
_INK, _SOFT, _LINE = "#182026", "#55626c", "#d5dce0"
_COLOURS = ("#1f5f8b", "#1d7148", "#a83a2a")
_RATES = ("accuracy", "sensitivity", "specificity")


def judges_page(found: JudgeReport) -> str:
    """The page (HTML)."""
    lead = [*text.lead(found)[found.simulated :], *text.notes(found)]
    if found.planted:
        lead += text.planted_lines(found.planted)
    if found.gold:
        lead += text.gold_lines(found.gold)
    findings = [(each.judge, each.kind, each.evidence, "; ".join(text.consequences(each))) for each in found.findings]
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Judges not to be relied on", ("judge", "is", "evidence", "what one can do"), findings),
        ("Judges", text.JUDGES, text.judge_rows(found)),
        ("Agreement of two", text.TWO, text.two_rows(found.agreement.two)),
        *(
            (f"By {kind}", text.group_header(kind, found), [text.group_row(group) for group in groups])
            for kind, groups in found.groups.items()
        ),
    ]
    tables += [
        (f"Answered without the image, by {kind}", (kind, *text.BLIND), rows)
        for kind, rows in text.blind_rows(found).items()
    ]
    if found.planted:
        tables.append(("Planted errors", text.PLANTED, text.planted_rows(found.planted)))
    if found.drift:
        tables.append(("Over time", ("from (UTC)", *text.drift_names(found)), text.drift_rows(found)))
    rows = [
        (f"{each.judge}: {rate}" if not number else rate, getattr(each, rate), _COLOURS[number])
        for each in found.accuracies
        for number, rate in enumerate(_RATES)
    ]
    pictures = [("Estimates with 95 % intervals", interval_svg(rows).encode())] if rows else []
    return table_page("Judges", lead, tables, pictures, simulated=found.simulated)


def interval_svg(rows: Sequence[tuple[str, Interval, str]]) -> str:
    """Each row's interval as a line with a dot, on a scale from the lowest bound, to a tenth, to 1; and its numbers.

    rows: name, interval of a share, colour.
    """
    least = min(int(each.low * 10) / 10 for _, each, _ in rows)
    least = min(least, 0.9)
    height = len(rows) * _ROW + 30

    def x(share: float) -> float:
        return _LEFT + (share - least) / (1 - least) * _WIDE

    parts = []
    for tenth in range(round(least * 10), 11):
        at = x(tenth / 10)
        parts.append(f'<path d="M{at:.1f} 4V{height - 22}" stroke="{_LINE}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle" fill="{_SOFT}">{tenth * 10} %</text>')
    for number, (name, each, colour) in enumerate(rows):
        y = number * _ROW + 16
        label = esc(fitting(name, _LEFT - 14, 13))
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end" fill="{_INK}">{label}</text>',
            f'<path d="M{x(each.low):.1f} {y}H{x(each.high):.1f}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(each.value):.1f}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{_LEFT + _WIDE + 14}" y="{y + 4}" fill="{_SOFT}">{interval(each)}</text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDE + 190}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13">{"".join(parts)}</svg>'
    )
