"""How right a release's samples are by the votes of its judges: a column of its rows, and a section of its card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from taskgalaxy_ops.release.agreement import Agreement, Ballot, Interval
from taskgalaxy_ops.release.judge_fit import TOGETHER, merged, probabilities, warnings
from taskgalaxy_ops.release.markdown import table, text
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.storage.shards import short


def ballot_of(votes: str | None) -> Ballot:
    """A row's votes, as they lie in the selection; (): nobody voted, because a person gave the answer."""
    return tuple((vote["judge"], vote.get("vote")) for vote in json.loads(votes)) if votes else ()


def right(plan: Selection) -> Callable[[Ballot], float | None]:
    """The probability that a sample with these votes is right, by ``release.probability``.

    None: there are no votes, or no estimate, because fewer than two judges vote now so, now so.
    """
    if plan.settings.probability == "recorded" and (measure := plan.inputs.measure) is not None:
        return lambda cast: measure.probability(cast) if cast else None
    return probabilities(plan.judge_model, plan.ballots.all).get


def section(plan: Selection, measured: Agreement) -> list[str]:
    """The card's lines on how right the judges are, by their votes; nothing where ``release.probability`` is unset."""
    if plan.settings.probability is None:
        return []
    counts, judges = plan.ballots.all, [judge.name for judge in plan.inputs.judges]
    if (model := plan.judge_model) is None:
        return ["How right the judges are cannot be told: fewer than two of them vote now so, now so.", ""]
    accuracies, dependences = model.accuracies(), model.dependences()
    released = Counter(ballot_of(sample.votes) for sample in plan.samples())
    del released[()]
    of_samples = model.share_right(merged(released, model))
    told = [
        f"- **{text(each.judge)} is {each.kind}**: {text(each.evidence)}."
        for each in warnings(counts, judges, measured, accuracies, dependences)
    ]
    told += [
        f"- {' and '.join(map(text, two.judges))} err together (probability {two.probability:.2f}), on about "
        f"{two.share:.0%} of the pairs."
        for two in dependences
        if two.probability >= TOGETHER
    ]
    return [
        "### How right the judges are",
        "",
        "Estimated by their votes alone, with 95 % intervals; no person looked. Sensitivity: of right pairs, those "
        "that a judge approves; specificity: of wrong ones, those it rejects. After Dawid and Skene, *Maximum "
        "likelihood estimation of observer error-rates*, 1979, with priors, and allowing for judges that err together.",
        "",
        *table(
            ("judge", "accuracy", "sensitivity", "specificity"),
            [
                (
                    text(each.judge),
                    *(_shown(found) for found in (each.accuracy, each.sensitivity, each.specificity)),
                )
                for each in accuracies
            ],
        ),
        *([f"Right, of the samples: {_shown(of_samples)}. {_column(plan)}", ""] if of_samples else []),
        *([*told, ""] if told else []),
    ]


def _shown(found: Interval) -> str:
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _column(plan: Selection) -> str:
    by = "all votes of this release"
    if plan.settings.probability == "recorded" and plan.inputs.measure is not None:
        by = f"what was recorded of the judges ({short(plan.inputs.measure.hash)})"
    return f"`probability` in the Parquet files is each sample's probability of being right, by {by}."
