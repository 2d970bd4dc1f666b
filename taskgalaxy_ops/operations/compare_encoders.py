"""Compare a second encoder with the store's: which task types each of them finds for the same images.

Models are asked nothing, and the store keeps nothing of it: what has no embedding yet is encoded for this alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Any

from taskgalaxy_ops.errors import EncoderError, SettingsError
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.embed import embeddings_of
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match, TaskTypePath
from taskgalaxy_ops.settings import EncoderSettings, validated
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

IMAGES = 1000  # that are compared, unless another number is given
EXAMPLES = 12  # that differ most, and as many again of all that differ

_AT_ONCE = 2048  # images whose vectors are in memory

Found = Sequence[Match]  # of one image by one encoder, nearest first


@dataclass(slots=True)
class Counts:
    """Matches by one encoder, by the other, and those that both find."""

    first: int = 0
    second: int = 0
    both: int = 0

    def add(self, first: int, second: int, both: int) -> None:
        self.first += first
        self.second += second
        self.both += both

    @property
    def overlap(self) -> float:
        """What both find, as a share of what is found by the one that finds more."""
        return self.both / most if (most := max(self.first, self.second)) else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An image, and what is found for it."""

    image: ImageId
    files: Sequence[str]  # of each live source that has it: source and path
    overlap: float
    both: Sequence[tuple[TaskTypePath, int, int]]  # with its rank by the one and by the other
    first: Found  # alone
    second: Found


@dataclass(slots=True, kw_only=True)
class EncoderComparison:
    """What two encoders find for the same images."""

    first: str  # the store's encoder
    second: str
    images: int
    of: int  # live images of the chosen sources
    k: int
    overlap: float = 0.0  # the mean over the images
    same: int = 0  # images for which both find the same task types
    disjoint: int = 0  # images for which they have none in common
    matches: Counts = field(default_factory=Counts)
    task_types: Counts = field(default_factory=Counts)  # that are found for at least one image
    branches: dict[str, Counts] = field(default_factory=dict)  # matches by first-level node, the largest first
    differing: Sequence[Example] = ()  # those with the least overlap
    drawn: Sequence[Example] = ()  # of all that differ, by hash


def encoder_settings(name: str, options: Sequence[str]) -> EncoderSettings:
    """The settings of an encoder by its name and further fields of ``encoder``, each as ``FIELD=VALUE``.

    Raises SettingsError.
    """
    given: dict[str, Any] = {"name": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key == "name":
            raise SettingsError(f"--option {option!r}: write FIELD=VALUE, such as model=ViT-B-32.")
        given[key] = [*given.get(key, ()), value] if key == "templates" else value
    return validated(EncoderSettings, given, f"encoder {name!r}")


def described(chosen: EncoderSettings) -> str:
    """An encoder's name with what is set beside it."""
    fields = chosen.model_dump(exclude={"name", "templates"}, exclude_none=True)
    templates = [f"{len(chosen.templates)} templates"] if chosen.templates else []
    return " ".join([chosen.name, *map(str, fields.values()), *templates])


def compare(
    workspace: Workspace,
    other: EncoderSettings,
    sources: Sequence[str] | None = None,
    images: int | None = IMAGES,
    progress: Progress | None = None,
) -> EncoderComparison:
    """Match the store's images with its encoder and with another one.

    images: so many, drawn by hash; None: all. Both match by the settings' ``k`` and ``per_branch``; not by
    ``min_similarity``, since similarities of two encoders do not compare.

    Raises EncoderError, SourceError.
    """
    progress, look = progress or Silent(), workspace.snapshot()
    sides = [look, look.with_settings(encoder=other)]
    live = [(shard, sorted(_live(look, shard))) for shard in lanes.shards_of(look, sources)]
    chosen = _sample(live, images)
    count = sum(len(ids) for _, ids in chosen)
    if not count:
        raise EncoderError("match --compare: the store has no image.\n  Run `taskgalaxy ingest` first.")
    progress.note("task types are embedded, as far as they are not yet")
    types = [TaxonomyStore(side).embeddings(keep=False) for side in sides]
    version = TaxonomyStore(look).version()
    found = EncoderComparison(
        first=described(look.settings.encoder),
        second=described(other),
        images=count,
        of=sum(len(ids) for _, ids in live),
        k=look.settings.match.k,
    )
    tally = _Tally(found)
    progress.stage("compare", count, "images")
    for part in _parts(chosen):
        matched = [_matched(side, part, those, version) for side, those in zip(sides, types, strict=True)]
        tally.add({image: (matched[0][image], matched[1][image]) for _, ids in part for image in ids})
        progress.advance("compare", sum(len(ids) for _, ids in part))
    tally.finish(look, {image: shard.id for shard, ids in chosen for image in ids})
    return found


def _live(look: Workspace, shard: ImageShard) -> set[ImageId]:
    return set(look.registry.image_ids(shard)).difference(look.registry.dead(shard))


_Part = list[tuple[ImageShard, list[ImageId]]]


def _sample(live: _Part, images: int | None) -> _Part:
    if images is None:
        return [(shard, ids) for shard, ids in live if ids]
    chosen = set(nsmallest(images, (image for _, ids in live for image in ids), key=_drawn))
    kept = ((shard, [image for image in ids if image in chosen]) for shard, ids in live)
    return [(shard, ids) for shard, ids in kept if ids]


def _parts(chosen: _Part) -> Iterator[_Part]:
    """Image shards, several at a time, so that an encoder's batches are full and memory stays bounded."""
    part: _Part = []
    for shard, ids in chosen:
        part.append((shard, ids))
        if sum(len(each) for _, each in part) >= _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _matched(
    side: Workspace, part: _Part, types: EmbeddingMatrix, version: TaxonomyVersion
) -> dict[ImageId, list[Match]]:
    ids, vectors = embeddings_of(side, part)
    found: dict[ImageId, list[Match]] = {image: [] for image in ids}
    chosen = side.settings.match
    for each in match(EmbeddingMatrix(tuple(ids), vectors), types, k=chosen.k, per_branch=chosen.per_branch):
        found[each.image].append(replace(each, task_type=version.shown(each.task_type)))
    return found


class _Tally:
    """Counts what was found, and keeps the images that are examples."""

    def __init__(self, found: EncoderComparison) -> None:
        self._found = found
        self._overlaps = 0.0
        self._seen: list[Counter[TaskTypePath]] = [Counter(), Counter()]
        self._branches: dict[str, Counts] = {}
        self._differing: list[Example] = []
        self._drawn: list[Example] = []

    def add(self, matched: Mapping[ImageId, tuple[Found, Found]]) -> None:
        examples = [self._image(image, *found) for image, found in matched.items()]
        differ = [each for each in examples if each.overlap < 1]
        self._differing = nsmallest(
            EXAMPLES, [*self._differing, *differ], key=lambda each: (each.overlap, _drawn(each.image))
        )
        self._drawn = nsmallest(2 * EXAMPLES, [*self._drawn, *differ], key=lambda each: _drawn(each.image))

    def _image(self, image: ImageId, first: Found, second: Found) -> Example:
        ranks = [{each.task_type: each.rank for each in found} for found in (first, second)]
        both = [(path, rank, ranks[1][path]) for path, rank in ranks[0].items() if path in ranks[1]]
        counts = Counts(len(first), len(second), len(both))
        self._found.matches.add(len(first), len(second), len(both))
        for seen, paths in zip(self._seen, ranks, strict=True):
            seen.update(paths)
        for path in ranks[0].keys() | ranks[1].keys():
            ours, theirs = path in ranks[0], path in ranks[1]
            self._branches.setdefault(path.partition("~")[0], Counts()).add(ours, theirs, ours and theirs)
        self._overlaps += counts.overlap
        self._found.same += counts.overlap == 1
        self._found.disjoint += not both and bool(first or second)
        return Example(
            image=image,
            files=(),
            overlap=counts.overlap,
            both=both,
            first=[each for each in first if each.task_type not in ranks[1]],
            second=[each for each in second if each.task_type not in ranks[0]],
        )

    def finish(self, look: Workspace, shards: Mapping[ImageId, str]) -> None:
        """Fill in what is known once all images were added. shards: the image shard of each."""
        found, (one, other) = self._found, self._seen
        found.overlap = self._overlaps / found.images
        found.task_types = Counts(len(one), len(other), len(one.keys() & other.keys()))
        order = sorted(self._branches.items(), key=lambda pair: (-pair[1].first - pair[1].second, pair[0]))
        found.branches = dict(order)
        found.differing = _with_files(look, self._differing, shards)
        shown = {each.image for each in found.differing}
        rest = [each for each in self._drawn if each.image not in shown]
        found.drawn = _with_files(look, rest[:EXAMPLES], shards)


def _with_files(look: Workspace, examples: Iterable[Example], shards: Mapping[ImageId, str]) -> list[Example]:
    named = []
    for each in examples:
        claims = [claim for claim in look.registry.claims_of(shards[each.image]) if claim.image == each.image]
        files = sorted({f"{claim.source}: {claim.file}" for claim in claims})
        named.append(replace(each, files=files))
    return named


def _drawn(image: ImageId) -> float:
    return draw("compare encoders", image)
