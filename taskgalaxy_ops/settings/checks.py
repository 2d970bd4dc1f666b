"""Settings of the checks between write and vote: which pairs are rejected by their texts, before judges are paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.settings.base import Patterns, Strict

TextField = Literal["question", "answer", "reasoning"]


Words = tuple[str, ...]


class TextRule(Strict):
    """One rule on a pair's texts; what each field means is said at the head of ``generation/checks.yaml``."""

    kind: Literal["patterns", "length", "answer in question", "answer repeats question", "language"] = "patterns"
    reason: Literal[Reason.BY_RULE, Reason.REFUSED, Reason.UNSAFE_TEXT] = Reason.BY_RULE
    of: tuple[TextField, ...] = ("question", "answer", "reasoning")
    patterns: Patterns = ()
    allowed: Patterns = Field((), alias="except")
    quoted: bool = True
    characters: Mapping[TextField, Annotated[int, Field(ge=1)]] = {}
    language: str = ""
    scripts: Words = ()
    words: Mapping[str, Words] = {}
    least: int = Field(3, ge=1)


class RepeatSettings(Strict):
    """How often the same may be asked; of several pairs, those with the smallest ids stay."""

    image: int | None = Field(
        1, ge=1, description="pairs of an image and question form whose question is the same; null: any number"
    )
    task_type: int | None = Field(
        None,
        ge=1,
        description="pairs of a task type, question form and image shard whose question and answer are the same; "
        "null: any number",
    )


class CheckSettings(Strict):
    """Which pairs are rejected by their texts, before judges are asked."""

    personal_data: bool = Field(
        False,
        description="e-mail addresses, telephone, card and account numbers; on for photographs of people, not "
        "where receipts and letters are to be read",
    )
    rules: dict[str, TextRule | None] = Field(
        {}, description="rules of your own, laid over the package's: one of the same name replaces it, null removes it"
    )
    repeats: RepeatSettings | None = Field(
        None, description="reject pairs that ask the same again; not with `targets`; null: never"
    )
