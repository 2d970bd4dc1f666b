"""The text of `judges`, and the words that its page shares."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.operations.judge_findings import Finding, Order
from taskgalaxy_ops.operations.judge_votes import VotesPaid
from taskgalaxy_ops.operations.judges import Group, JudgeReport
from taskgalaxy_ops.release.agreement import Interval, JudgeFigures, TwoJudges
from taskgalaxy_ops.release.gold import GoldFigures, PlantedFigures
from taskgalaxy_ops.release.judge_fit import TOGETHER
from taskgalaxy_ops.release.judge_fit import share as interval
from taskgalaxy_ops.release.judge_model import JudgeAccuracy
from taskgalaxy_ops.text import dollars, shown

_SHOWN = 20  # groups of a kind


def judges(found: JudgeReport) -> list[str]:
    """What the votes say, in the order of what one acts on."""
    lines = [*lead(found), ""]
    lines += table(JUDGES, judge_rows(found))
    lines += ["", *table(TWO, two_rows(found.agreement.two))]
    lines += ["", *notes(found)]
    for each in found.findings:
        lines += [shown(f"{each.judge} is {each.kind}: {each.evidence}"), *(f"  {line}" for line in consequences(each))]
    for kind, groups in found.groups.items():
        header = group_header(kind, found)
        lines += ["", *table(header, [group_row(group) for group in groups[:_SHOWN]])]
        if len(groups) > _SHOWN:
            lines.append(f"and {len(groups) - _SHOWN:,} more (--json, --html)")
    for kind, rows in blind_rows(found).items():
        lines += ["", *table((kind, *BLIND), rows[:_SHOWN])]
    if found.drift:
        lines += ["", *table(("from (UTC)", *drift_names(found)), drift_rows(found))]
    if found.planted:
        lines += ["", *planted_lines(found.planted), *table(PLANTED, planted_rows(found.planted))]
    if found.gold:
        lines += ["", *gold_lines(found.gold)]
    return lines


def lead(found: JudgeReport) -> list[str]:
    """What there is."""
    lines = ["SIMULATED models: this says nothing about real judges"] if found.simulated else []
    lines.append(
        f"{found.pairs:,} pairs with a verdict, {found.accepted:,} accepted by {found.rule}"
        + (f"; {found.pending:,} units have no answer yet" if found.pending else "")
    )
    return lines


BLIND = ("asked without image", "answered", "share")


def blind_rows(found: JudgeReport) -> dict[str, list[tuple[str, ...]]]:
    """By branch, form and source, a row of it and ``BLIND`` for each name; {}: there is no blind probe."""
    return {
        kind: [
            (shown(name), f"{asked:,}", f"{right:,}", f"{right / asked:.1%}") for name, (right, asked) in names.items()
        ]
        for kind, names in found.blind.items()
    }


JUDGES = ("judge", "approved", "rejected", "abstained", "approves", "accuracy", "sensitivity", "specificity", "a vote")


def judge_rows(found: JudgeReport) -> list[tuple[str, ...]]:
    """A row of ``JUDGES`` for each judge."""
    by_name = {each.judge: each for each in found.accuracies}
    return [_judge_row(each, by_name.get(each.judge), found.paid.get(each.judge)) for each in found.agreement.judges]


def _judge_row(votes: JudgeFigures, accuracy: JudgeAccuracy | None, paid: VotesPaid | None) -> tuple[str, ...]:
    estimates = (
        (interval(accuracy.accuracy), interval(accuracy.sensitivity), interval(accuracy.specificity))
        if accuracy
        else ("–", "–", "–")
    )
    return (
        shown(votes.judge),
        f"{votes.approvals:,}",
        f"{votes.rejections:,}",
        f"{votes.abstentions:,}",
        percent(votes.approval_share),
        *estimates,
        f"${(paid.cost or paid.list_cost) / 1e9 / paid.votes:.6f}" if paid and paid.votes else "–",
    )


TWO = ("judges", "pairs", "agreed", "Cohen's kappa")


def two_rows(two: Sequence[TwoJudges]) -> list[tuple[str, ...]]:
    """A row of ``TWO`` for each two judges."""
    return [
        (
            " and ".join(map(shown, each.judges)),
            f"{each.pairs:,}",
            percent(each.agreed / each.pairs if each.pairs else None),
            "–" if each.kappa is None else f"{each.kappa:.3f}",
        )
        for each in two
    ]


def notes(found: JudgeReport) -> list[str]:
    """What else is to be said, a sentence a line."""
    over = (
        f"the {found.agreement.pairs:,} audited pairs"
        if found.agreement.audited
        else f"{found.agreement.pairs:,} pairs, none of them audited: too low, for later judges see what is in dispute"
    )
    lines = [f"Agreement is over {over}."]
    if found.alpha:
        lines.append(f"Krippendorff's alpha {_plain(found.alpha)} (1: always agreed, 0: as by chance).")
    if found.right:
        lines.append(f"Right, of the accepted pairs: {interval(found.right)}, by the votes{_with_gold(found)}.")
    elif found.pairs:
        lines.append("No estimates: fewer than two judges vote now so, now so.")
    for two in found.dependences:
        if two.probability >= TOGETHER:
            names = " and ".join(map(shown, two.judges))
            lines.append(
                f"{names} err together (probability {two.probability:.2f}), on about {two.share:.0%} of the pairs: "
                "the intervals allow for it."
            )
    if found.order:
        lines.append(order(found.order))
    return lines


def _with_gold(found: JudgeReport) -> str:
    gold = found.gold is not None and found.gold.pairs > found.gold.unknown
    known = [*(["the gold set"] if gold else []), *(["planted errors"] if found.planted else [])]
    return "".join(f" and {each}" for each in known)


def order(found: Order) -> str:
    """The proposal in words."""
    names = ", ".join(map(shown, found.judges))
    by = f"by {found.pairs:,} audited pairs; the verdicts are the same"
    if found.saved < 0.005:
        return f"Order: no other order of judges costs less ({by})."
    cost, now = ((f"{each:.2f} votes" if found.unit == "votes" else f"${each:.6f}") for each in (found.cost, found.now))
    return f"Order: {names} would cost {cost} a pair in place of {now}, {found.saved:.0%} less ({by})."


def consequences(found: Finding) -> list[str]:
    """What dropping or asking a judge again would do."""
    drop = found.drop
    waiting = f", {drop.open:,} are open until other judges are asked {drop.votes:,} votes at most" if drop.open else ""
    price = f" ({dollars(drop.cost)})" if drop.open and drop.cost is not None else ""
    lines = [f"without it {drop.accepted:,} pairs more and {drop.rejected:,} fewer are accepted{waiting}{price}"]
    if found.ask_again is not None:
        lines.append(f"to ask another judge in its place costs about {dollars(found.ask_again)}, by its votes so far")
    return lines


def group_header(kind: str, found: JudgeReport) -> tuple[str, ...]:
    """The columns of ``group_row``."""
    names = (f"{shown(each.judge)} approves" for each in found.agreement.judges)
    return (kind, "pairs", "accepted", *names, "alpha", "right")


def group_row(group: Group) -> tuple[str, ...]:
    """The figures of a group."""
    return (
        shown(group.name),
        f"{group.pairs:,}",
        percent(group.accepted / group.pairs),
        *(percent(share) for share in group.approvals.values()),
        "–" if group.alpha is None else f"{group.alpha:.3f}",
        percent(group.right),
    )


def drift_names(found: JudgeReport) -> list[str]:
    """The columns of ``drift_rows`` but the first."""
    return [f"{shown(each.judge)} approves" for each in found.agreement.judges]


def drift_rows(found: JudgeReport) -> list[tuple[str, ...]]:
    """A row for each period."""
    names = [each.judge for each in found.agreement.judges]
    return [
        (period, *(f"{percent(own[name][1])} of {own[name][0]:,}" if name in own else "–" for name in names))
        for period, own in found.drift.items()
    ]


def gold_lines(gold: GoldFigures) -> list[str]:
    """What a gold set says."""
    known = gold.pairs - gold.unknown
    lines = [
        f"Gold set: {gold.pairs:,} pairs, {known:,} of them with a verdict here: {gold.right:,} right, "
        f"{gold.accepted:,} accepted."
    ]
    if gold.precision:
        lines.append(f"Right, of those accepted (precision): {interval(gold.precision)}.")
    if gold.recall:
        lines.append(f"Accepted, of those right (recall): {interval(gold.recall)}.")
    if gold.calibration is not None:
        lines.append(f"Calibration: the votes' probabilities are off by {gold.calibration:.3f} on average.")
    if gold.right_share:
        lines.append(f"Right, of all samples, if the gold set was drawn evenly: {interval(gold.right_share)}.")
    return lines


def planted_lines(planted: PlantedFigures) -> list[str]:
    """What errors that were planted say."""
    price = "" if planted.cost is None else f", about {dollars(planted.cost)}"
    lines = [
        f"Planted errors: {planted.errors:,}, on which {planted.votes:,} votes were cast{price}.",
        f"Rejected, of them: {interval(planted.caught)}.",
    ]
    if planted.precision:
        lines.append(
            f"Right, of the accepted pairs, if errors of the teacher are as easy to see: at least "
            f"{planted.precision.value:.1%}, by the lower bound of what is rejected {planted.precision.low:.1%}."
        )
    if planted.probability is not None:
        lines.append(f"The votes alone give them a probability of being right of {planted.probability:.3f} on average.")
    return lines


PLANTED = ("judge", "errors seen", "rejects")


def planted_rows(planted: PlantedFigures) -> list[tuple[str, ...]]:
    """A row of ``PLANTED`` for each judge."""
    return [(shown(judge), f"{seen:,}", interval(rejects)) for judge, (seen, rejects) in planted.by_judge.items()]


def _plain(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need be, the first to the left, the others to the right."""
    every = [header, *rows]
    widths = [min(max(len(row[at]) for row in every), 40) for at in range(len(header))]
    return [
        "  ".join(
            cell[:width].ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]
