"""The stages, a record each: the one table that keys, runs, planning, explaining, texts, commands and DAGs read.

A stage that asks models is its row here and its pure file beside (``AskingStage`` says what that holds). This module
imports nothing heavy: Airflow reads it as it parses the DAGs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from taskgalaxy_ops.extensions import QUESTION_FORMS
from taskgalaxy_ops.records import Match, Pair, Reject, Relevant, Verdict, Vote

Role = Literal["encoder", "teacher", "judges", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """All that is told of a stage in one place."""

    name: str
    version: int  # of its code, and part of its keys: one more whenever the same inputs give another output
    input: str  # what it reads of the stage before, as a marker's made_of names it
    reads: str = ""  # the table of the stage before that holds it
    tables: Mapping[str, type[Any]]  # what it writes, by name: records
    unit: tuple[str, str]  # what goes in and what comes out, in words
    planned: str  # what a plan counts of it, in words
    prompts: tuple[str, ...] = ()  # that ship; a package's question form adds its own
    role: Role  # who does the work
    counts: Mapping[str, str]  # by table: what `explain` calls a row of it
    about: str = ""  # what the command of its name says of itself; "": it has no command

    @property
    def asks(self) -> bool:
        """Whether it asks models."""
        return self.role in {"teacher", "judges"}


STAGES = (
    Stage(
        name="embed",
        version=1,
        input="images",
        tables={},  # of vectors, and so no records
        unit=("images", "embedded"),
        planned="images",
        role="encoder",
        counts={},
    ),
    Stage(
        name="match",
        version=1,
        input="embeddings",
        tables={"matches": Match},
        unit=("images", "matches"),
        planned="images",
        role="none",
        counts={"matches": "matched"},
        about="the nearest task types of each image (encodes what has no embedding yet)",
    ),
    Stage(
        name="filter",
        version=1,
        input="matches",
        reads="matches",
        tables={"relevant": Relevant, "rejects": Reject},
        unit=("matches", "fitting"),
        planned="matches",
        prompts=("filter",),
        role="teacher",
        counts={"relevant": "fitting"},
        about="match, then the teacher keeps the task types that fit",
    ),
    Stage(
        name="write",
        version=1,
        input="relevant matches",
        reads="relevant",
        tables={"pairs": Pair, "rejects": Reject},
        unit=("questions to write", "pairs"),
        planned="questions to write",
        prompts=(*(f"write_{form}" for form in QUESTION_FORMS.shipped), "answer"),
        role="teacher",
        counts={"pairs": "written"},
        about="match and filter, then the teacher writes question-answer pairs",
    ),
    Stage(
        name="vote",
        version=1,
        input="pairs",
        reads="pairs",
        tables={"votes": Vote, "verdicts": Verdict, "samples": Pair, "rejects": Reject},
        unit=("pairs", "accepted"),
        planned="votes",
        prompts=("vote", "blind"),
        role="judges",
        counts={"samples": "accepted"},
        about="match, filter and write, then the judges vote",
    ),
)
STAGE = {stage.name: stage for stage in STAGES}
NAMES = tuple(STAGE)  # in the order in which they run
ASKING = tuple(stage.name for stage in STAGES if stage.asks)
INPUTS = frozenset(stage.input for stage in STAGES)


def before(name: str) -> str:
    """The stage before this one."""
    return NAMES[NAMES.index(name) - 1]
