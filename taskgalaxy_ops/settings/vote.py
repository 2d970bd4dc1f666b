"""Settings of the vote and of people's reviews: when a pair becomes a sample, and what else is asked to know it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from taskgalaxy_ops.settings.base import Strict
from taskgalaxy_ops.settings.models import Model
from taskgalaxy_ops.settings.pipeline import ContextFields, shown_context


class ProbabilityRule(Strict):
    """A pair is a sample where it is right with at least this probability."""

    probability: float = Field(gt=0, lt=1)


class BlindSettings(Strict):
    """Whether a pair can be answered without its image: a model tries before judges are asked."""

    model: Model = Field(description="a cheap one; it is sent no image")
    tries: int = Field(3, ge=1, le=10)
    right: int = Field(
        3,
        ge=1,
        description="of these, from which on a pair is answerable without seeing; a guess at yes or no is right "
        "every second time",
    )
    rule: Literal["mark", "reject"] = Field(
        "mark",
        description="mark: verdicts and the report of judges say so; reject: it is no sample, and no judge is asked",
    )

    @property
    def told(self) -> str:
        """In words, for people."""
        return f"{self.model.name} ({self.model.model}): {self.right} of {self.tries}, {self.rule}"

    @model_validator(mode="after")
    def _possible(self) -> BlindSettings:
        if self.right > self.tries:
            raise ValueError(f"right is {self.right}, but there are {self.tries} tries: lower it")
        return self


class VoteSettings(Strict):
    """When a pair becomes a sample."""

    quorum: int = Field(2, ge=1)
    # Left out of what is kept and hashed where it is the default: it came later, and changes nothing made before it.
    rule: Literal["quorum"] | ProbabilityRule = Field(
        "quorum",
        description="quorum: so many approvals; {probability: 0.9}: as probable as that to be right, by its votes and "
        "what `taskgalaxy judges --record` recorded last, whatever the quorum",
        exclude_if=lambda rule: rule == "quorum",
    )
    show_answer: bool = True
    audit_share: float = Field(0.1, ge=0, le=1, description="share of pairs, by hash, that every judge sees")
    context: ContextFields = shown_context("judges are shown, too")
    # Left out of what is kept and hashed where they are unset: they came later, and change nothing made before them.
    planted: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of accepted pairs, by hash, that every judge is also shown with a wrong answer, to measure "
        "judges by (docs/quality.md); never released; not with `targets`",
        exclude_if=lambda share: not share,
    )
    blind: BlindSettings | None = Field(
        None,
        description="ask first whether a pair is answered without its image (docs/quality.md); null: never",
        exclude_if=lambda chosen: chosen is None,
    )


class ReviewSettings(Strict):
    """What people's votes decide."""

    rule: Literal["gold", "veto"] = Field(
        "gold",
        description="gold: nothing, they are kept to measure judges by; veto: a pair that most of its reviewers find "
        "wrong leaves the next release, and a corrected answer takes its place",
    )
    # Left out of what is kept and hashed where it is the default: it came later, and changes nothing made before it.
    corrections: Literal["accepted", "judged"] = Field(
        "accepted",
        description="of veto: accepted: a corrected answer is a sample by its reviewer's word; judged: where judges "
        "accept it, who are asked about it as about any pair; not with `targets`",
        exclude_if=lambda chosen: chosen == "accepted",
    )
