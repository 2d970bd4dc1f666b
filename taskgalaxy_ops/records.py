"""One frozen record a stage boundary: the data contract. Parquet columns follow from the fields (storage/rows.py).

Identities: an image is the SHA-256 of its file's bytes; a task type is its path joined by ``~``; a pair (and the
sample that it may become) is the fingerprint of image, task type, variant, question, answer and reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from taskgalaxy_ops.hashing import fingerprint

ImageId = str
TaskTypePath = str
PairId = str

_ID_DIGITS = 64  # of an image's or a pair's id: a SHA-256 in hex
_HEX = re.compile("[0-9a-f]*")


def is_id(text: str) -> bool:
    """Whether a text has the form of an image's or a pair's id."""
    return begins_id(text, _ID_DIGITS)


def begins_id(text: str, digits: int) -> bool:
    """Whether an id may begin so; ``digits``: of how many digits it must be at least."""
    return digits <= len(text) <= _ID_DIGITS and _HEX.fullmatch(text) is not None


def leading_id(text: str) -> str | None:
    """The id that a text begins with, as a file's name does that is called after its image; None: there is none."""
    return text[:_ID_DIGITS] if is_id(text[:_ID_DIGITS]) else None


class Reason(StrEnum):
    """Why something did not go on: the closed list, by stage."""

    # ingest
    NOT_AN_IMAGE = "not an image"
    TRUNCATED_FILE = "truncated"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_SMALL = "too small"
    DUPLICATE_FILE = "duplicate"
    UNREADABLE = "unreadable"
    TAKEN_DOWN = "taken down"
    # expand
    NOT_A_LABEL = "not a label"
    DUPLICATE_LABEL = "duplicate label"
    NEAR_DUPLICATE_LABEL = "near-duplicate label"
    # filter
    NOT_FITTING = "not fitting"
    # write
    DECLINED = "declined"
    EMPTY = "empty"
    UNSAFE_TEXT = "unsafe text"
    # any stage that asks: a model's terminal reply that is no answer
    REFUSED = "refused"
    MALFORMED = "malformed reply"
    # vote
    BELOW_QUORUM = "below quorum"
    ABSTAINED = "too few votes"
    # release
    NEAR_DUPLICATE_IMAGE = "near-duplicate image"
    DUPLICATE_PAIR = "duplicate question"
    OVER_CAP = "over the cap"
    OTHER_VARIANT = "other variant"


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of an image's content; origin and licence are claims of the sources."""

    image: ImageId  # sha256 of the file's bytes, hex
    width: int  # pixels, upright (EXIF orientation applied)
    height: int
    format: str  # "jpeg", "png", "webp", …
    size: int  # bytes of the file
    phash: str  # perceptual hash, 40 hex digits: 64 bits of brightness gradients, 96 of colours on a 4 by 4 grid


@dataclass(frozen=True, slots=True)
class Claim:
    """A source says that it holds an image, and what it knows of it."""

    source: str
    image: ImageId
    file: str  # path within the source
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None


@dataclass(frozen=True, slots=True)
class FileReject:
    """A file of a source that is no image of ours."""

    source: str
    file: str
    reason: str  # a Reason
    detail: str


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file of a source as its last scan listed it: what tells a later one whether anything changed."""

    file: str
    version: str  # an ETag, or size and time of the last write


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a taxonomy version. Its leaves are the task types."""

    path: TaskTypePath
    level: int  # 1 = first level
    origin: str  # "seed", "hand", "expand"
    status: str  # "live" or "retired"
    about: str | None = None  # what one asks, for people


@dataclass(frozen=True, slots=True)
class LabelReject:
    """A proposed label that did not become a node."""

    path: str
    reason: str  # a Reason
    detail: str  # the neighbour's path where there is one
    similarity: float | None = None  # cosine to the neighbour


@dataclass(frozen=True, slots=True)
class Match:
    """An image and one task type near it in the encoder's space."""

    image: ImageId
    task_type: TaskTypePath
    similarity: float  # cosine, -1..1
    rank: int  # 1 = nearest


@dataclass(frozen=True, slots=True)
class Relevant:
    """A match that the teacher found fitting."""

    image: ImageId
    task_type: TaskTypePath
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A unit of a stage that did not go on, and why."""

    stage: str
    image: ImageId
    task_type: TaskTypePath
    reason: str  # a Reason
    detail: str
    variant: str | None = None
    pair: PairId | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer as the teacher wrote them."""

    pair: PairId
    image: ImageId
    task_type: TaskTypePath
    variant: str  # "plain", "chain_of_thought"
    question: str
    answer: str
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """One judge's 0 or 1 and its reason; None is an abstention."""

    pair: PairId
    judge: str
    vote: int | None
    reason: str
    audit: bool  # asked for statistics alone: the verdict stood already


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judges' votes came to: accepted is a sample."""

    pair: PairId
    accepted: bool
    approvals: int
    votes: int  # votes that count (audits left out)


def pair_id(
    image: ImageId, task_type: TaskTypePath, variant: str, question: str, answer: str, reasoning: str | None
) -> PairId:
    """Identity of a question-answer pair and of the sample it may become."""
    return fingerprint(
        "sample",
        {
            "image": image,
            "task_type": task_type,
            "variant": variant,
            "question": question,
            "answer": answer,
            "reasoning": reasoning,
        },
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What was accepted for one unit: ``value`` as the stage's parser gave it, or a terminal reason."""

    value: Mapping[str, Any] | None = None
    terminal: str | None = None  # a Reason: the model replied, and it is no answer
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One model reply, as it was paid for."""

    reply: str  # nonce: identity of this reply
    stage: str
    model: str  # name in the settings
    units: tuple[str, ...]  # units asked in this request
    answers: Mapping[str, Answer]  # units answered by it
    raw: Mapping[str, Any]  # the body as it came
    usage: Mapping[str, int]  # prompt_tokens, completion_tokens; and of them, cached_tokens, reasoning_tokens
    cost: int  # nano-dollars (1e-9 USD) that this call cost
    list_cost: int  # nano-dollars at list prices: what a simulated call would have cost
    ceiling: int  # nano-dollars that the budget held for it
    block: str  # the budget's block that it drew from
    attempts: int  # requests sent, this one included
    seen: int  # number of the log that the asker had read
    at: float  # seconds since the epoch
    seconds: float  # from the first request to this reply
    image: str | None = None  # that it is about; None: about none, or of a store that did not record it
    simulated: bool = False
    note: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""  # that it was asked in; "": of a store that did not record it, as below
    types: tuple[str, ...] = ()  # task type of each unit; (): of a question about none
