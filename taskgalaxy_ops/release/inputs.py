"""The inputs of a release: the rows of the live images, by image shard, and facts for its card about their making."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.records import Claim, ImageId, Pair, PairId, TaskTypePath
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkInputs
from taskgalaxy_ops.release.near_pictures import Looks
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.judge_log import JudgeMeasure


@dataclass(frozen=True, slots=True)
class TaxonomySummary:
    """The taxonomy that the images were matched with."""

    version: int  # for history.json: another version may have the same leaves
    leaves: Sequence[TaskTypePath]
    levels: Mapping[int, int]  # live nodes on each level, 1 = first


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """The rows of one image shard. All rows about an image are in the same image shard."""

    samples: pa.Table  # records.Pair
    votes: pa.Table  # records.Vote, also of rejected pairs, which count for the judges' agreement
    verdicts: pa.Table  # records.Verdict, also of rejected pairs
    images: pa.Table  # records.Image
    claims: Sequence[Claim]  # those of live sources
    corrections: Sequence[Pair] = ()  # pairs with people's answers, samples without a vote of a judge
    voted_down: pa.Table | None = None  # records.Pair, where ``release.formats`` has ``preference``: all others
    found_wrong: Mapping[PairId, str] = field(default_factory=dict)  # what people found wrong: samples become rejects


@dataclass(frozen=True, kw_only=True)
class ReleaseInputs:
    """Everything that goes into a release. Its bytes depend on no order but that of ``stage_counts`` and ``judges``.

    Raises ValueError where a model is simulated and ``simulated`` is false.
    """

    shards: Iterable[ShardRows]  # read once, one in memory at a time
    read_image: Callable[[ImageId], bytes]  # the file's bytes
    image_uri: Callable[[ImageId], str]  # the URI of what is released, for images that are not copied into the release
    stage_counts: Sequence[StageCounts]  # up to the vote; the release adds its own
    taxonomy: TaxonomySummary
    teacher: Model
    judges: Sequence[Model]
    encoder: Mapping[str, Any]  # identity
    prompts: Mapping[str, str]  # hash of each prompt's text, by name
    simulated: bool
    partial: bool = False
    pending: int = 0  # units without an answer
    # The picture that the teacher was sent, from the image's id and its file; None: it is made anew.
    rendition: Callable[[ImageId, bytes], bytes] | None = None
    # The picture of an image as it was released before; None: it is to be made.
    released: Callable[[ImageId], bytes] | None = None
    refer: Callable[[ImageId], None] | None = None  # sees to it that the store has what ``image_uri`` names
    rules: Mapping[str, Any] = field(default_factory=dict)  # settings that the data depend on, e.g. "vote.quorum": 2
    audit_share: float = 0.0  # share of pairs, by hash, that every judge saw
    settings_hash: str = ""  # for history.json: it covers addresses, too, which change no data
    targets: Mapping[str, int] | None = None  # task types by how they stand; None: the settings have no targets
    benchmarks: BenchmarkInputs | None = None  # what it is compared with; None: ``release.decontaminate`` is not set
    looks: Callable[[Sequence[ImageId]], Looks] | None = None  # of images, where ``release.near_duplicates`` is set
    # Embeddings ``(n, d)`` of questions, each of length 1, where ``release.repeats.alike`` is set.
    encode_questions: Callable[[Sequence[str]], Vectors] | None = None
    measure: JudgeMeasure | None = None  # what is recorded of the judges, where ``release.probability`` reads it
    usage: Mapping[str, Any] = field(default_factory=dict)  # for history.json: calls, tokens, cost

    def __post_init__(self) -> None:
        if not self.simulated and (names := [m.name for m in (self.teacher, *self.judges) if m.simulated]):
            raise ValueError(f"{', '.join(names)}: simulated, so what they made must be marked so")
