"""What a release is made of.

The rows of the live images, by image shard, and what its card says of how they came about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.records import Claim, ImageId, TaskTypePath
from taskgalaxy_ops.settings import Model


@dataclass(frozen=True, slots=True)
class TaxonomySummary:
    """The taxonomy that the images were matched with."""

    version: int  # history: the same leaves may come back under another number
    leaves: Sequence[TaskTypePath]
    levels: Mapping[int, int]  # live nodes on each level, 1 = first


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of one image shard. All that is known of an image and its pairs is in one of them."""

    samples: pa.Table  # of records.Pair
    votes: pa.Table  # of Vote, of rejected pairs too: the judges' agreement is over all of them
    verdicts: pa.Table  # of Verdict, of rejected pairs too
    images: pa.Table  # of Image
    claims: Sequence[Claim]  # live ones


@dataclass(frozen=True, kw_only=True)
class ReleaseInputs:
    """Everything that goes into a release. Its bytes hang on no order but that of ``stage_counts`` and ``judges``.

    Raises ValueError where a model is simulated and ``simulated`` is false.
    """

    shards: Iterable[ShardRows]  # read once, one in memory at a time
    read_image: Callable[[ImageId], bytes]  # the file's bytes
    image_uri: Callable[[ImageId], str]  # where those bytes lie, for images that are referred to
    stage_counts: Sequence[StageCounts]  # up to the vote; the release adds its own
    taxonomy: TaxonomySummary
    teacher: Model
    judges: Sequence[Model]
    encoder: Mapping[str, Any]  # identity
    prompts: Mapping[str, str]  # hash of each prompt's text, by name
    simulated: bool
    partial: bool = False
    pending: int = 0  # units without an answer
    rules: Mapping[str, Any] = field(default_factory=dict)  # settings that shaped the data, e.g. "vote.quorum": 2
    audit_share: float = 0.0  # share of pairs, by hash, that every judge saw
    settings_hash: str = ""  # history: it covers addresses too, which change no data
    usage: Mapping[str, Any] = field(default_factory=dict)  # history: calls, tokens, cost

    def __post_init__(self) -> None:
        if not self.simulated and (names := [m.name for m in (self.teacher, *self.judges) if m.simulated]):
            raise ValueError(f"{', '.join(names)}: simulated, so what they made must be marked so")
