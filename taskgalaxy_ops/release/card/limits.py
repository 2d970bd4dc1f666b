"""The card's last section: what to be wary of."""

from __future__ import annotations

from taskgalaxy_ops.generation.lost import Lost, lost
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import near_groups
from taskgalaxy_ops.release.markdown import text
from taskgalaxy_ops.release.select import Selection


def limits(plan: Selection) -> list[str]:
    return [
        "## Limits",
        "",
        "- Questions, answers and reasoning are text of models, accepted by models. No person has read all of it.",
        "- A judge's approval is an opinion: the agreement above says how far to trust it.",
        f"- {_alike(plan)}",
        *_reviewed(plan),
        *_blind(plan),
        *_tokens(plan.neutralised),
        *_lost(lost(stage for stage in plan.funnel if stage.stage in ASKING)),
        *([] if plan.inputs.benchmarks else ["- Nothing was checked against the test sets of benchmarks."]),
        "- `history.json` holds times, costs and version numbers; `manifest.json` has each file's size and SHA-256.",
        "",
    ]


def _alike(plan: Selection) -> str:
    """What became of images that look alike."""
    if plan.settings.near_duplicates is not None:
        return near_groups.told(plan.rows, plan.settings.near_duplicates)
    bits = plan.settings.near_duplicate_bits
    if bits < 0:
        return "Images that look alike were kept, and may lie in different splits."
    near = f"perceptual hashes differ in {bits} of 160 bits at most" if bits else "perceptual hashes are equal"
    return f"Of images whose {near}, one was kept. Crops and mirrored copies may lie in different splits."


def _reviewed(plan: Selection) -> list[str]:
    """What people's votes changed; nothing is said where they decide nothing."""
    if "review.rule" not in plan.inputs.rules:
        return []
    wrong = plan.funnel[-1].rejects.get(Reason.FOUND_WRONG, 0)
    (answers,) = plan.rows.execute("SELECT count(*) FROM chosen WHERE votes IS NULL").fetchone()
    told = f"Samples with a person's answer, which have no votes: {answers:,}."
    if "review.corrections" in plan.inputs.rules:
        told = "A person's answer is a sample where judges accept it."
    return [f"- Pairs that people found wrong, and that were left out: {wrong:,}. {told}"]


def _blind(plan: Selection) -> list[str]:
    if not plan.settings.blind:
        return []
    right, tried = plan.blind
    return [
        f"- Samples whose question a model answered rightly without the image: {right:,} of {tried:,} that were tried "
        "(`blind` in the Parquet files)."
    ]


def _tokens(number: int) -> list[str]:
    if not number:
        return []
    named = "1 sample names" if number == 1 else f"{number:,} samples name"
    return [
        f"- {named} special tokens of tokenizers, as `s` or `INST` in their brackets. So that no trainer reads them as "
        "its own, their brackets are written ‹ › and ⟦ ⟧."
    ]


def _lost(found: Lost) -> list[str]:
    """What is missing by the pipeline's fault or a model's; nothing is said where nothing is."""
    if not found.reasons:
        return []
    named = ", ".join(f"{number:,} {text(reason)}" for reason, number in found.reasons.items())
    return [f"- {found.share:.1%} of what models were asked ended without an answer that could be used: {named}."]
