"""The data contract: one frozen record for each stage boundary. ``storage/parquet.py`` derives Parquet columns from
the fields.

Identities: an image is the SHA-256 of its file's bytes, and one that is a page of a document the fingerprint of the
document, the page's number and how it is rendered (``page_id``); a task type is its path joined by ``~``; a pair (and
the sample that it may become) is the fingerprint of image, task type, variant, question, answer and reasoning, of its
further turns where it is a conversation, and of its further images where it is about several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from taskgalaxy_ops.hashing import canonical_json, fingerprint

ImageId = str
TaskTypePath = str
PairId = str
Turn = tuple[str, str]  # of a conversation: a question and its answer

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
    """Why a stage rejected an item. The list is closed; it is ordered by stage."""

    # ingest
    NOT_AN_IMAGE = "not an image"
    TRUNCATED_FILE = "truncated"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_SMALL = "too small"
    ANIMATED = "animated"
    DUPLICATE_FILE = "duplicate"
    UNREADABLE = "unreadable"
    TOO_SLOW = "too slow to decode"
    TOO_MUCH_MEMORY = "too much memory"
    DECODER_CRASHES = "crashes its decoder"
    TAKEN_DOWN = "taken down"
    # expand
    NOT_A_LABEL = "not a label"
    DUPLICATE_LABEL = "duplicate label"
    NEAR_DUPLICATE_LABEL = "near-duplicate label"
    BY_RULE = "by rule"
    REFUSED_LABEL = "refused by a person"
    # filter
    NOT_FITTING = "not fitting"
    # write
    NO_FORM = "no question form suits it"
    NO_GROUP = "no group of images"
    DECLINED = "declined"
    EMPTY = "empty"
    UNSAFE_TEXT = "unsafe text"
    DUPLICATE_ANSWER = "duplicate answer"
    # any stage that asks a model: a terminal reply that is no answer
    REFUSED = "refused"
    MALFORMED = "malformed reply"
    TOO_LONG = "too long for the model"
    MODEL_FAILS = "model fails on it"
    # vote
    ANSWERED_BLIND = "answered without the image"
    BELOW_QUORUM = "below quorum"
    IMPROBABLE = "too improbable"
    ABSTAINED = "too few votes"
    PLANTED = "planted"  # an error that measures judges, whatever they say of it
    # release
    FOUND_WRONG = "a person found it wrong"
    BENCHMARK_IMAGE = "benchmark image"
    BENCHMARK_QUESTION = "benchmark question"
    NEAR_DUPLICATE_IMAGE = "near-duplicate image"
    DUPLICATE_PAIR = "duplicate question"
    REPEATED_QUESTION = "question repeated in its task type"
    OVER_CAP = "over the cap"
    UNDER_FLOOR = "task type with too few samples"
    OTHER_TASK_TYPES = "other task types were drawn"
    OTHER_LICENCE = "licence not among those allowed"
    TWO_SPLITS = "images of two splits"
    OTHER_VARIANT = "other variant"


LOST = (Reason.MALFORMED, Reason.TOO_LONG, Reason.MODEL_FAILS)  # by our fault or a model's, not the item's


@dataclass(frozen=True, slots=True)
class Image:
    """What an image's file says of its content. Origin and licence are claims that the sources make (``Claim``)."""

    image: ImageId  # sha256 of the file's bytes, hex; of a page of a document, its ``page_id``
    width: int  # pixels, upright (EXIF orientation applied)
    height: int
    format: str  # "jpeg", "png", "webp", …
    size: int  # bytes of the file
    phash: str  # perceptual hash, 40 hex digits: 64 bits of brightness gradients, 96 of colours on a 4 by 4 grid
    levels: str | None = None  # "black:white" of deep grey, where they are not those of its container; came later
    content: str | None = None  # sha256 of the stored bytes, hex, where ``image`` is another: of a page; came later


@dataclass(frozen=True, slots=True)
class ImageHash:
    """An image's PDQ and thumbnails, which say whether two pictures look the same."""

    image: ImageId
    pdq: str  # 256 bits, 64 hex digits, as ThreatExchange writes them
    quality: int  # 0..100; below 50 the picture has few edges, and its hash says little
    thumbnail: str = ""  # 16 by 16 pixels of RGB, row by row, in base64; came later
    brightness: str = ""  # 32 by 32 pixels of grey, in the same way; came later


@dataclass(frozen=True, slots=True)
class CopyVector:
    """An image's SSCD descriptor, which says whether two pictures are copies of one."""

    image: ImageId
    vector: str  # float16, in base64


def page_id(document: str, number: int, rendering: Mapping[str, Any]) -> ImageId:
    """The identity of a page of a document, which no version of the library that draws it changes.

    document: sha256 of its bytes, hex. number: of the page, from 1 on. rendering: what decides the pixels.
    """
    return fingerprint("page", {"document": document, "page": number, "rendering": rendering})


@dataclass(frozen=True, slots=True)
class Claim:
    """A source's statement that it holds an image, with what it states about the image."""

    source: str
    image: ImageId
    file: str  # path within the source
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None
    place: str | None = None  # where the source has an image that is not copied, percent-encoded; came later
    context: str | None = None  # what else it says, texts by field: canonical JSON; came later


@dataclass(frozen=True, slots=True)
class FileReject:
    """A file of a source that ingest did not take as an image, and why."""

    source: str
    file: str
    reason: str  # a Reason
    detail: str


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file of a source as a scan listed it. The next scan compares versions to tell which files changed."""

    file: str
    version: str  # an ETag, or size and time of the last write


@dataclass(frozen=True, slots=True)
class FilePages:
    """A file of a source that holds several pages or frames. The first is the image; the others are left out."""

    file: str
    pages: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a taxonomy version. Its leaves are the task types."""

    path: TaskTypePath
    level: int  # 1 = first level
    origin: str  # "seed", "hand", "expand"
    status: str  # "live" or "retired"
    about: str | None = None  # what a task of this type asks; people read it, no model does
    asked_as: TaskTypePath | None = None  # the path that encoder and models are given; None: its own; came later
    successor: TaskTypePath | None = None  # of a retired node: what it was renamed, moved or merged to; came later


@dataclass(frozen=True, slots=True)
class LabelReject:
    """A proposed label that did not become a node."""

    path: str
    reason: str  # a Reason
    detail: str  # the neighbour's path where there is one; of a rule its name, and what broke it
    similarity: float | None = None  # cosine to the neighbour; None: the same in the same words, or no neighbour


@dataclass(frozen=True, slots=True)
class Match:
    """An image and one task type near it in the encoder's space."""

    image: ImageId
    task_type: TaskTypePath
    similarity: float  # cosine, -1..1
    rank: int  # 1 = nearest


@dataclass(frozen=True, slots=True)
class Relevant:
    """A match whose task type the teacher judged to fit the image."""

    image: ImageId
    task_type: TaskTypePath
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """An item that a stage rejected, and why."""

    stage: str
    image: ImageId
    task_type: TaskTypePath
    reason: str  # a Reason
    detail: str
    variant: str | None = None
    pair: PairId | None = None
    number: int | None = None  # of a further answer to a question, as ``Pair.number``; came later
    further_images: str | None = None  # as ``Pair.further_images``; came later


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
    further_turns: str | None = None  # of a conversation, those after the first: see ``turns_as_text``; came later
    number: int | None = None  # of a further answer to the question, from 2 on; None: the first one; came later
    further_images: str | None = None  # of a group, those after the first: see ``images_as_text``; came later

    @property
    def images(self) -> tuple[ImageId, ...]:
        """The images that it is about, in their order: one, but for groups."""
        return self.image, *images_in(self.further_images)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Every question with its answer: one, but for conversations."""
        return (self.question, self.answer), *turns_in(self.further_turns)


def turns_as_text(further: Sequence[Turn]) -> str | None:
    """The further turns of a conversation as records have them: canonical JSON, a list of [question, answer]."""
    return canonical_json(further).decode() if further else None


def turns_in(text: str | None) -> tuple[Turn, ...]:
    """The further turns in such a text, in their order."""
    return tuple((question, answer) for question, answer in json.loads(text)) if text else ()


def images_as_text(further: Sequence[ImageId]) -> str | None:
    """The further images of a group as records have them: canonical JSON, a list of ids in the group's order."""
    return canonical_json(further).decode() if further else None


def images_in(text: str | None) -> tuple[ImageId, ...]:
    """The further images in such a text, in their order."""
    return tuple(json.loads(text)) if text else ()


def reject_of(stage: str, pair: Pair, reason: Reason, detail: str) -> Reject:
    """The reject of a pair by a stage."""
    return Reject(
        stage,
        pair.image,
        pair.task_type,
        reason,
        detail,
        pair.variant,
        pair.pair,
        pair.number,
        pair.further_images,
    )


@dataclass(frozen=True, slots=True)
class Vote:
    """One judge's vote on a pair, 0 or 1, and its reason. The vote None is an abstention."""

    pair: PairId
    judge: str
    vote: int | None
    reason: str
    audit: bool  # cast for statistics alone, after the verdict was reached


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the judges' votes on a pair. An accepted pair is a sample."""

    pair: PairId
    accepted: bool
    approvals: int
    votes: int  # votes that count (audits left out)
    blind: bool | None = None  # whether it is answered without the image; None: nobody tried; came later


def pair_id(
    image: ImageId | Sequence[ImageId],
    task_type: TaskTypePath,
    variant: str,
    question: str,
    answer: str,
    reasoning: str | None,
    further_turns: str | None = None,
) -> PairId:
    """The identity of a question-answer pair, and of the sample that it may become: 64 hex digits.

    image: that it is about, or all of a group in their order.
    """
    first, *others = [image] if isinstance(image, str) else image
    return fingerprint(
        "sample",
        {
            "image": first,
            "task_type": task_type,
            "variant": variant,
            "question": question,
            "answer": answer,
            "reasoning": reasoning,
            "further_turns": further_turns,
            "further_images": images_as_text(others),
        },
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What was accepted for one request item: ``value`` as the stage's parser gave it, or a terminal reason."""

    value: Mapping[str, Any] | None = None
    terminal: str | None = None  # a Reason: the model replied, and it is no answer
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One model reply that was paid for, as the journal keeps it. A unit is a request item's key."""

    reply: str  # nonce: identity of this reply
    stage: str
    model: str  # name in the settings
    units: tuple[str, ...]  # units that the request asked about
    answers: Mapping[str, Answer]  # by unit: the answers that were accepted from it
    raw: Mapping[str, Any]  # the body as received
    usage: Mapping[str, int]  # prompt_tokens, completion_tokens; and of them, cached_tokens, reasoning_tokens
    cost: int  # nano-dollars (1e-9 USD) that this call cost
    list_cost: int  # nano-dollars at list prices: what a simulated call would have cost
    ceiling: int  # nano-dollars that the budget held for the call: the most that it could cost
    block: str  # the budget block that the call drew from
    attempts: int  # requests sent, this one included
    seen: int  # number of the last journal entry that the sender had read
    at: float  # seconds since the epoch
    seconds: float  # from the first request to this reply
    image: str | None = None  # that the request is about; None: about none, or an older version did not record it
    further_images: tuple[str, ...] = ()  # that it is about, too, in the request's order
    simulated: bool = False
    note: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""  # that sent the request; "": an older version did not record it
    types: tuple[str, ...] = ()  # task type of each unit; (): the request is about none, or it was not recorded
