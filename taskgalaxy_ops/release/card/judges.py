"""The card's section on the judges: how they voted, and how far they agree."""

from __future__ import annotations

from taskgalaxy_ops.release import judged
from taskgalaxy_ops.release.agreement import agreement
from taskgalaxy_ops.release.markdown import table, text
from taskgalaxy_ops.release.select import Selection


def judges(plan: Selection) -> list[str]:
    figures = agreement(plan.ballots, [judge.name for judge in plan.inputs.judges])
    over = (
        f"the {figures.pairs:,} audited pairs, drawn by hash and shown to every judge"
        if figures.audited
        else f"{figures.pairs:,} pairs with two votes or more. None was audited, and later judges were asked mostly "
        "where earlier ones disagreed: the figures are too low"
    )
    voted, accepted = plan.verdicts
    return [
        "## Judges and their agreement",
        "",
        f"Of {voted:,} pairs with a verdict {accepted:,} were accepted.",
        "",
        *table(
            ("judge", "approved", "rejected", "abstained", "approval share"),
            [
                (text(j.judge), f"{j.approvals:,}", f"{j.rejections:,}", f"{j.abstentions:,}", _share(j.approval_share))
                for j in figures.judges
            ],
        ),
        f"Agreement, over {over}:",
        "",
        *table(
            ("judges", "pairs", "agreed", "Cohen's kappa"),
            [
                (" and ".join(map(text, two.judges)), f"{two.pairs:,}", _of(two.agreed, two.pairs), _figure(two.kappa))
                for two in figures.two
            ],
        ),
        f"Krippendorff's alpha of all judges: {_figure(figures.alpha)} (1: always agreed, 0: as by chance). Formulas: "
        "Cohen, *A coefficient of agreement for nominal scales*, 1960; Krippendorff, *Computing Krippendorff's "
        "Alpha-Reliability*, 2011, nominal data with missing values.",
        "",
        *judged.section(plan, figures),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _of(part: int, whole: int) -> str:
    return _share(part / whole if whole else None)


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
