"""Coverage: what each task type has, of images, pairs and samples, and which images fit none.

It is a function of the live images, the taxonomy, the settings and the answers that there are; it asks no model and
encodes no image. Memory grows with the number of task types, not with that of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from heapq import nsmallest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskgalaxy_ops.generation.match_run import computed_matches
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.run import RunOptions, RunResult, generate, look_through
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match, Relevant, TaskTypePath
from taskgalaxy_ops.storage.coverage_log import CoverageEntry
from taskgalaxy_ops.storage.parquet import to_table
from taskgalaxy_ops.taxonomy import ancestors
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

Numbers = NDArray[np.int64]
DRAWN = 20_000  # images that fit nothing, of which the ids are kept; of more, as many are drawn by hash

_ROWS = 200_000  # counted at a time
_IMAGE, _TYPE = "image", "task_type"
_FORM = "variant"


@dataclass(frozen=True, slots=True)
class Counts:
    """What task types have, each (m,) in the order of ``Coverage.types``."""

    matched: Numbers  # images of whose nearest task types it is one
    kept: Numbers  # of these, those that the filter found it to fit
    pairs: Numbers  # written for these
    samples: Numbers  # accepted of these

    @classmethod
    def zeros(cls, types: int) -> Counts:
        return cls(*(np.zeros(types, np.int64) for _ in fields(cls)))

    def sums(self, rows: Any = slice(None)) -> dict[str, int]:
        """By name, the sums over some task types: indices, a mask or a slice; by default over all."""
        return {each.name: int(getattr(self, each.name)[rows].sum()) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What each task type has.

    An image that two sources hold counts for each of them. A form has pairs and samples, no matches.
    """

    taxonomy: int  # version
    types: tuple[TaskTypePath, ...]  # the task types, in order of path
    asked: tuple[TaskTypePath, ...]  # the paths by which they are asked, in the same order
    counts: Counts
    by_source: Mapping[str, Counts]
    by_form: Mapping[str, Counts]
    images: int  # live ones that have an embedding
    waiting: int = 0  # live ones that have none yet: they are not counted
    pending: int = 0  # units without an answer: what they may add is not counted
    unmatched: int = 0  # images that fit nothing: no task type of theirs was kept, and nothing is pending
    drawn: Mapping[str, Sequence[ImageId]] = field(default_factory=dict)  # of these, by image shard


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTables:
    """An image shard's rows, with the columns ``image`` and ``task_type``, and ``variant`` of pairs and samples.

    sources: the live images that each live source claims. open: images about which the filter has not answered all.
    """

    shard: str
    matches: pa.Table
    relevant: pa.Table
    pairs: pa.Table
    samples: pa.Table
    sources: Mapping[str, Collection[ImageId]]
    open: Collection[ImageId] = ()


Answered = tuple[RunResults, Mapping[str, Sequence[Match]]]


def coverage(workspace: Workspace, progress: Progress | None = None, seen: Answered | None = None) -> Coverage:
    """The coverage of all live images by the newest taxonomy version, under the settings.

    seen: what ``answered`` gave, where the caller needs it, too; None: it is read. Image shards without embeddings are
    left out, and their images counted as waiting. Writes nothing. Raises EncoderError, DamageError.
    """
    progress, view = progress or Silent(), workspace.snapshot()
    version = TaxonomyStore(view).version()
    named = sorted((version.shown(path), path) for path in version.asked())
    types, asked = tuple(path for path, _ in named), tuple(path for _, path in named)
    results, computed = seen or answered(view, progress)
    tables = _tables(results, computed, progress)
    there = {shard.id for shard in results.result.shards}
    left_out = (shard for shard in view.registry.with_claims(view.registry.shards_of()) if shard.id not in there)
    waiting = sum(len({claim.image for claim in view.registry.claims_of(shard.id)}) for shard in left_out)
    known = {"taxonomy": version.number, "waiting": waiting, "pending": results.pending}
    return counted(types, tables, asked, **known)


def as_entry(coverage: Coverage) -> CoverageEntry:
    """What an entry of the log of coverage would say."""
    numbers = zip(coverage.asked, coverage.counts.samples.tolist(), strict=True)
    return CoverageEntry(0, coverage.taxonomy, {path: samples for path, samples in numbers if samples})


def answered(view: Workspace, progress: Progress) -> Answered:
    """The results of all embedded image shards with the answers that exist, and matches that are not committed.

    view: a snapshot: nothing is written.
    """
    shards = view.registry.with_claims(view.registry.shards_of())
    committed = {shard.id: view.stage_outputs.committed(shard.id) for shard in shards}
    if not shards:
        return RunResults(view, RunResult()), {}
    types = TaxonomyStore(view).embeddings(keep=False)
    matches, computed = computed_matches(view, shards, committed, types, progress, encode=False)
    found = look_through(view, matches, committed, computed)
    return RunResults(view, RunResult(shards=found.shards, matches=matches, targets=found.targets)), computed


def _tables(results: RunResults, computed: Mapping[str, Sequence[Match]], progress: Progress) -> Iterator[ShardTables]:
    registry, targets = results.workspace.registry, results.result.targets
    progress.stage("coverage", len(results.result.shards), "shards")
    for shard in results.result.shards:
        sources: dict[str, set[ImageId]] = {}
        for claim in registry.claims_of(shard.id):
            sources.setdefault(claim.source, set()).add(claim.image)
        matches = matches_of(results, computed, shard)
        yield ShardTables(
            shard=shard.id,
            matches=matches,
            relevant=results.columns(shard, "filter", "relevant", (_IMAGE, _TYPE)),
            pairs=_first_answers(results.columns(shard, "write", "pairs", (_IMAGE, _TYPE, _FORM, "number"))),
            samples=_first_answers(results.columns(shard, "vote", "samples", (_IMAGE, _TYPE, _FORM, "number"))),
            sources=sources,
            open=_open(shard, matches) | ({image for image, _ in targets.beyond(shard.id)} if targets else set()),
        )
        progress.advance("coverage")


def _first_answers(rows: pa.Table) -> pa.Table:
    """The rows but for those of further answers to a question, of which a release holds one."""
    return rows.filter(pc.is_null(rows["number"])).drop_columns(["number"])


def matches_of(
    results: RunResults, computed: Mapping[str, Sequence[Match]], shard: ShardResult, *names: str
) -> pa.Table:
    """An image shard's matches: image, task type, and further columns by name."""
    names = (_IMAGE, _TYPE, *names)
    if shard.id in computed:
        return to_table(computed[shard.id], Match).select(list(names))
    stage_outputs = results.workspace.stage_outputs
    return stage_outputs.columns(stage_outputs.refs(results.result.matches[shard.id])["matches"], Match, names)


def _open(shard: ShardResult, matches: pa.Table) -> set[ImageId]:
    """The images of a shard about which the filter has not answered all that it was asked."""
    made = shard.stages["filter"]
    if made.counts is None or not made.counts.pending:
        return set()
    lacking = Counter(matches[_IMAGE].to_pylist())
    lacking.subtract(row.image for name in ("relevant", "rejects") for row in made.rows[name])
    return {image for image, number in lacking.items() if number > 0}


def counted(
    types: Sequence[TaskTypePath],
    shards: Iterable[ShardTables],
    asked: Sequence[TaskTypePath] = (),
    *,
    taxonomy: int = 0,
    **known: int,
) -> Coverage:
    """The coverage of these task types by the rows of image shards. known: other fields of it.

    Every row's task type is one of ``asked``, by default of ``types``.
    """
    asked = asked or types
    counting = _Counting(asked)
    images = unmatched = 0
    drawn: list[tuple[float, str, ImageId]] = []
    for shard in shards:
        counting.add("matched", shard.matches, shard.sources)
        counting.add("kept", shard.relevant, shard.sources)
        counting.add("pairs", shard.pairs, shard.sources)
        counting.add("samples", shard.samples, shard.sources)
        live = set().union(*shard.sources.values())
        fits_nothing = live.difference(shard.relevant[_IMAGE].to_pylist(), shard.open)
        images, unmatched = images + len(live), unmatched + len(fits_nothing)
        drawn += [(draw("coverage", image), shard.shard, image) for image in fits_nothing]
        if len(drawn) > 2 * DRAWN:
            drawn = nsmallest(DRAWN, drawn)
    counting.finish()
    by_shard: dict[str, list[ImageId]] = {}
    for _, shard_id, image in nsmallest(DRAWN, drawn):
        by_shard.setdefault(shard_id, []).append(image)
    return Coverage(
        taxonomy=taxonomy,
        types=tuple(types),
        asked=tuple(asked),
        counts=counting.counts[""],
        by_source=dict(sorted(counting.by_source.items())),
        by_form=dict(sorted(counting.by_form.items())),
        images=images,
        unmatched=unmatched,
        drawn={shard_id: sorted(ids) for shard_id, ids in sorted(by_shard.items())},
        **known,
    )


class _Counting:
    """Counts rows by task type, many image shards at a time: looking up a task type's place is most of the work."""

    def __init__(self, types: Sequence[TaskTypePath]) -> None:
        self._types = pa.array(types, pa.string())
        self._waiting: list[tuple[str, pa.Table, Mapping[str, Any]]] = []
        self._rows = 0
        self.counts = {"": Counts.zeros(len(types))}
        self.by_source: dict[str, Counts] = {}
        self.by_form: dict[str, Counts] = {}

    def add(self, what: str, rows: pa.Table, sources: Mapping[str, Collection[ImageId]]) -> None:
        """Count an image shard's rows as ``what``: a field of Counts."""
        masks: dict[str, Any] = {}
        every = set().union(*sources.values())
        for source, images in sources.items():
            whole = len(images) == len(every)
            masks[source] = None if whole else pc.is_in(rows[_IMAGE], pa.array(sorted(images), pa.string())).to_numpy()
        self._waiting.append((what, rows, masks))
        self._rows += len(rows)
        if self._rows >= _ROWS:
            self.finish()

    def finish(self) -> None:
        """Count what waits. Raises ValueError for a task type that is none of those that are counted."""
        if not self._waiting:
            return
        paths = pa.chunked_array([chunk for _, rows, _ in self._waiting for chunk in rows[_TYPE].chunks], pa.string())
        places = pc.index_in(paths, self._types)
        if places.null_count:
            raise ValueError(f"{paths.filter(places.is_null())[0]} is no task type of the taxonomy version")
        codes, start = places.to_numpy(), 0
        for what, rows, masks in self._waiting:
            own, start = codes[start : start + len(rows)], start + len(rows)
            self._count(self.counts, "", what, own)
            for source, mask in masks.items():
                self._count(self.by_source, source, what, own if mask is None else own[mask])
            if _FORM in rows.column_names:
                forms = rows[_FORM].combine_chunks().dictionary_encode()
                indices = forms.indices.to_numpy()
                for number, form in enumerate(forms.dictionary.to_pylist()):
                    self._count(self.by_form, form, what, own[indices == number])
        self._waiting, self._rows = [], 0

    def _count(self, into: dict[str, Counts], name: str, what: str, codes: NDArray[Any]) -> None:
        if name not in into:
            into[name] = Counts.zeros(len(self._types))
        numbers: Numbers = getattr(into[name], what)
        numbers += np.bincount(codes, minlength=len(numbers))


def crowded(workspace: Workspace, at_least: float) -> dict[TaskTypePath, float]:
    """By node, the fitting images a live leaf below it; only nodes with at least ``at_least``.

    Counted from the filter's outputs under the settings and the newest taxonomy version, as far as there are answers;
    asks no model.
    """
    version = TaxonomyStore(workspace).version()
    leaves = Counter(above for leaf in version.leaves() for above in ancestors(leaf.path))
    fitting: Counter[TaskTypePath] = Counter()
    if workspace.registry.shards():
        for shard in generate(workspace, RunOptions(last_stage="filter", ask=False, commit=False)).shards:
            part = shard.stages["filter"]
            rows = (
                workspace.stage_outputs.load(part.stage_output, "relevant", Relevant)
                if part.stage_output
                else part.rows["relevant"]
            )
            fitting.update(above for row in rows for above in ancestors(version.shown(row.task_type)))
    images_a_leaf = {path: fitting[path] / number for path, number in leaves.items()}
    return {path: share for path, share in images_a_leaf.items() if share >= at_least}
