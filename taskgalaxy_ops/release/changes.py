"""What a release gains and loses against an earlier one, and why each sample is lost; asks nothing.

Samples are compared by their ids, in the temporary file of the selection: no text of the earlier release is read, and
memory does not grow with the number of samples. A sample has other words, and so another id, if it was written anew.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.generation.form_shares import forms_of, suited
from taskgalaxy_ops.generation.forms import FORMS
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.swaps import MADE
from taskgalaxy_ops.records import ImageId, Match, PairId, Reason, TaskTypePath, images_as_text, images_in
from taskgalaxy_ops.release.decontaminate.stored import benchmark_rules
from taskgalaxy_ops.release.published_rows import MadeOf, ReleaseRows
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.sqlite_staging import SPLITS
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.taxonomy import TaxonomyVersion, ancestors
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import LIVE, asked
from taskgalaxy_ops.workspace import Workspace


class Loss(StrEnum):
    """Why a sample of an earlier release is in a later one no more; beside it, the reasons of the release's rules."""

    TAKEN_DOWN = "image taken down"
    UNCLAIMED = "image that no source claims"
    RETIRED = "task type retired"
    DIVIDED = "task type divided into finer ones"
    REPLACED = "task type merged into another, or renamed to be asked again"
    PUSHED_OUT = "task type no longer among the image's nearest"
    NOT_TRIED = "task type has enough samples before it, or used up its tries"
    NOT_FITTING = "the teacher finds it unfitting now"
    UNJUDGED = "the teacher gave no usable answer"
    CHECKED = "rejected by a check of its text"
    WRITTEN_ANEW = "written anew"
    UNCORRECTED = "a person's answer that does not stand any more"
    NO_QUORUM = "no quorum by today's votes"
    IMPROBABLE = "too improbable by today's votes"
    NO_ANSWER = "no answer yet"
    UNTOLD = "other answers, votes or settings"  # of a release that is not the latest, no more is known


# Why a pair that the teacher wrote is not there any more; one that a person's answer made was never written.
_OF_WRITING = {Loss.WRITTEN_ANEW, Loss.NO_ANSWER, Reason.OTHER_VARIANT}


class Earlier(Protocol):
    """What is read of an earlier release's entry in the log."""

    @property
    def version(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def withdrawn(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseChanges:
    """Samples of a release against those of an earlier one."""

    since: str  # name of the earlier release
    kept: int
    gained: int
    lost: Mapping[str, int] = field(default_factory=dict)  # by a Loss, or a Reason of the release's rules
    renamed: int = 0  # of those kept, the samples whose task type has another path now
    # Of those kept, the samples that changed sides, by "test → train": what was trained on may now be tested on.
    moved: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As ``history.json`` has it: ``renamed`` and ``moved`` only where there are some."""
        return {name: value for name, value in asdict(self).items() if value or name not in {"renamed", "moved"}}


def compared(
    selection: Selection,
    results: RunResults,
    earlier: Earlier,
    computed: Mapping[str, Sequence[Match]] | None = None,
    types: Iterable[TaskTypePath] | None = None,
) -> ReleaseChanges:
    """A selection against an earlier release.

    results: what the selection is made of. computed: by image shard, matches that the store does not hold. types: the
    task types that images are matched with, as they are asked; None: those of the newest version. Raises DamageError
    where the earlier release cannot be read.
    """
    try:
        return lost_rows(selection, results, earlier, computed, types)
    finally:
        selection.rows.execute("DROP TABLE IF EXISTS earlier")


def lost_rows(
    selection: Selection,
    results: RunResults,
    earlier: Earlier,
    computed: Mapping[str, Sequence[Match]] | None = None,
    types: Iterable[TaskTypePath] | None = None,
) -> ReleaseChanges:
    """As ``compared``; leaves the tables ``earlier``, of the samples that are lost with why, and ``gained``."""
    rows, taxonomy = selection.rows, TaxonomyStore(results.workspace).version()

    def explain() -> None:
        by_quorum = results.workspace.settings.vote.rule == "quorum"
        rows.execute(
            "UPDATE earlier SET why = ? FROM pairs p WHERE p.pair = earlier.pair AND p.accepted = 0",
            (Loss.NO_QUORUM if by_quorum else Loss.IMPROBABLE,),
        )
        _explain_rest(rows, results, Leaves(types, taxonomy), computed or {})

    load_earlier(rows, results.workspace, earlier, taxonomy)
    return against(rows, earlier, explain)


def against(rows: sqlite3.Connection, earlier: Earlier, explain: Callable[[], None]) -> ReleaseChanges:
    """The samples in ``chosen`` against those in ``earlier``, of which those that are lost stay, with why.

    Makes the table ``gained``. explain: says why of those that no reason in ``pairs`` tells.
    """
    (renamed,) = rows.execute(
        "SELECT count(*) FROM chosen c JOIN earlier e USING (pair) WHERE c.task_type <> e.path"
    ).fetchone()
    moved = _moved(rows)
    rows.execute("DROP TABLE IF EXISTS gained")
    rows.execute("CREATE TABLE gained AS SELECT pair FROM chosen WHERE pair NOT IN (SELECT pair FROM earlier)")
    (gained,) = rows.execute("SELECT count(*) FROM gained").fetchone()
    (chosen,) = rows.execute("SELECT count(*) FROM chosen").fetchone()
    rows.execute("DELETE FROM earlier WHERE pair IN (SELECT pair FROM chosen)")
    rows.execute("UPDATE earlier SET why = p.reason FROM pairs p WHERE p.pair = earlier.pair AND p.reason NOT NULL")
    explain()
    lost = counted(rows)
    if earlier.withdrawn:  # its rows were erased with the images, so that they are not among those compared
        lost[Loss.TAKEN_DOWN] = lost.get(Loss.TAKEN_DOWN, 0) + earlier.withdrawn
    kept = chosen - gained
    return ReleaseChanges(since=earlier.name, kept=kept, gained=gained, lost=lost, renamed=renamed, moved=moved)


def _moved(rows: sqlite3.Connection) -> dict[str, int]:
    """Numbers of the samples of both releases by their splits then and now, where these differ."""
    found = rows.execute(
        "SELECT e.split, c.split, count(*) FROM chosen c JOIN earlier e USING (pair) GROUP BY e.split, c.split"
    )
    return {f"{before} → {SPLITS[now]}": n for before, now, n in found if before != SPLITS[now]}


def made_of(results: RunResults) -> MadeOf:
    """What decides which samples a release of these results has; image shards without samples do not count."""
    votes = {shard.id: shard.stages["vote"] for shard in results.result.shards if "vote" in shard.stages}
    outputs = {shard: vote.output for shard, vote in votes.items() if vote.output or vote.rows.get("samples")}
    return MadeOf(outputs, selecting(results.workspace))


def selecting(workspace: Workspace) -> dict[str, Any]:
    """What beside the votes decides which samples a release has, as JSON has it: settings, and people's votes."""
    came_later = {"near_duplicates", "repeats", "licences", "balance"}  # left out where they are not set
    chosen = {"cap", "near_duplicate_bits", "variants"} | came_later
    if any(FORMS.get(form).several for form in workspace.settings.write.variants):  # whose images may be of two splits
        chosen |= {"test", "validation"}
    rules = workspace.settings.release.model_dump(mode="json", include=chosen)
    if workspace.settings.release.decontaminate:
        told = workspace.settings.release.decontaminate.model_dump(mode="json", exclude={"sscd"})
        rules |= {"decontaminate": told, **benchmark_rules(workspace)}
    reviews = workspace.deciding_reviews
    return rules if reviews is None else {**rules, "reviews": reviews.entry}


def load_earlier(rows: sqlite3.Connection, workspace: Workspace, earlier: Earlier, taxonomy: TaxonomyVersion) -> None:
    """Make the table ``earlier`` of a release's samples, whose column ``why`` is null. Raises DamageError.

    ``path`` is the task type as the release has it, ``task_type`` as it is asked.
    """
    rows.execute("DROP TABLE IF EXISTS earlier")
    rows.execute(
        "CREATE TABLE earlier (pair TEXT PRIMARY KEY, image TEXT, path TEXT, variant TEXT, split TEXT, task_type TEXT, "
        "shard TEXT, further TEXT, why TEXT) WITHOUT ROWID"
    )
    asked_of = functools.cache(taxonomy.asked_of)
    released = ReleaseRows(workspace.store, earlier.version)
    rows.executemany(
        "INSERT INTO earlier (pair, image, path, variant, split, task_type) VALUES (?, ?, ?, ?, ?, ?)",
        ((*sample, asked_of(sample[2])) for sample in released.samples_in_splits()),
    )
    grouped = ((images_as_text(images), sample) for sample, images in released.groups())
    rows.executemany("UPDATE earlier SET further = ? WHERE pair = ?", grouped)


def counted(rows: sqlite3.Connection) -> dict[str, int]:
    """The rows of ``earlier`` by why they are lost, the most frequent first."""
    found = rows.execute("SELECT why, count(*) AS n FROM earlier WHERE why NOT NULL GROUP BY why ORDER BY n DESC, why")
    return dict(found)


def by_shard(rows: sqlite3.Connection, workspace: Workspace) -> list[str]:
    """The image shards of the images whose samples have no ``why`` yet. Those that no shard has any more get one."""
    index = workspace.registry.known()
    rows.create_function("shard_of", 1, index.get, deterministic=True)
    rows.execute("UPDATE earlier SET shard = shard_of(image) WHERE why IS NULL")
    rows.execute("CREATE INDEX earlier_by_shard ON earlier (shard)")
    denied = workspace.registry.denied()
    rows.create_function("is_denied", 1, lambda image: image in denied, deterministic=True)
    rows.execute(
        "UPDATE earlier SET why = CASE WHEN is_denied(image) THEN ? ELSE ? END WHERE why IS NULL AND shard IS NULL",
        (Loss.TAKEN_DOWN, Loss.UNCLAIMED),
    )
    return [shard for (shard,) in rows.execute("SELECT DISTINCT shard FROM earlier WHERE why IS NULL ORDER BY shard")]


def of_shard(rows: sqlite3.Connection, shard: str) -> list[tuple[PairId, ImageId, TaskTypePath, str, str | None]]:
    """Pair, image, task type, variant and further images of an image shard's samples without a ``why``."""
    return rows.execute(
        "SELECT pair, image, task_type, variant, further FROM earlier WHERE shard = ? AND why IS NULL", (shard,)
    ).fetchall()


def set_why(rows: sqlite3.Connection, found: Iterable[tuple[str | None, PairId]]) -> None:
    """Set why samples are lost; None: it is not."""
    rows.executemany("UPDATE earlier SET why = ? WHERE pair = ?", found)


def dead_images(workspace: Workspace, shard: ImageShard, known: Collection[str]) -> dict[ImageId, Loss]:
    """Why images of a shard are in no release. known: the image shards that have dead images."""
    if shard.id not in known:
        return {}
    denied = workspace.registry.denied()
    return {image: Loss.TAKEN_DOWN if image in denied else Loss.UNCLAIMED for image in workspace.registry.dead(shard)}


class Leaves:
    """The task types of a taxonomy, as they are asked, and why one is not among them any more.

    leaves: they may be of another version than ``taxonomy``, which says what was renamed; None: they are of this one.
    """

    def __init__(self, leaves: Iterable[TaskTypePath] | None, taxonomy: TaxonomyVersion) -> None:
        self._leaves = frozenset(taxonomy.asked() if leaves is None else leaves)
        self._groups = {above for leaf in self._leaves for above in ancestors(leaf)}
        self._groups |= {asked(node) for node in taxonomy.nodes if node.status == LIVE and node.asked_as}
        self._replaced = {asked(node) for node in taxonomy.nodes if node.successor}

    def gone(self, task_type: TaskTypePath) -> Loss | None:
        """Why there is no such task type any more; None: there is."""
        if task_type in self._leaves:
            return None
        if task_type in self._groups:
            return Loss.DIVIDED
        return Loss.REPLACED if task_type in self._replaced else Loss.RETIRED


def _explain_rest(
    rows: sqlite3.Connection,
    results: RunResults,
    leaves: Leaves,
    computed: Mapping[str, Sequence[Match]],
) -> None:
    """Say of the lost samples that the release's own rules did not leave out, and no vote, at which stage they went."""
    if rows.execute("SELECT 1 FROM earlier WHERE why IS NULL LIMIT 1").fetchone() is None:
        return
    workspace = results.workspace
    concerned = by_shard(rows, workspace)
    dead = workspace.registry.dead_hashes()
    reviews = ReviewLog(workspace.store).read()  # not those that decide: an earlier release may have had another rule
    corrections = reviews.corrections if reviews else {}
    there = {shard.id: (result, shard) for result, shard in results.shards()}
    for shard_id in concerned:
        samples = of_shard(rows, shard_id)
        if shard_id not in there:  # no live source claims an image of it
            set_why(rows, ((Loss.UNCLAIMED, pair) for pair, *_ in samples))
            continue
        result, shard = there[shard_id]
        now = _ShardNow(results, result, leaves, dead_images(workspace, shard, dead), computed.get(shard_id))
        whys = ((now.why(*sample), sample[0]) for sample in samples)
        set_why(
            rows,
            ((Loss.UNCORRECTED if why in _OF_WRITING and pair in corrections else why, pair) for why, pair in whys),
        )


class _ShardNow:
    """What the stages make of an image shard now."""

    def __init__(
        self,
        results: RunResults,
        result: ShardResult,
        leaves: Leaves,
        dead: Mapping[ImageId, Loss],
        computed: Sequence[Match] | None,
    ) -> None:
        self._results, self._result, self._leaves, self._dead = results, result, leaves, dead
        self._fitting = set(self._read("filter", "relevant", "image", "task_type"))
        rejects = self._read("filter", "rejects", "image", "task_type", "reason")
        self._rejected = {(image, task_type): reason for image, task_type, reason in rejects}
        self._pairs = {row[0] for row in self._read("write", "pairs", "pair")}
        written = ("image", "task_type", "variant")
        self._written = {*self._read("write", "pairs", *written), *self._read("write", "rejects", *written)}
        self._checked = {row[0] for row in self._read("write", "rejects", "pair")}
        self._forms = suited(results.workspace.settings.write)
        self._nearest = self._matched(computed)
        targets = results.result.targets
        self._not_tried = targets.beyond(result.id) if targets else set()

    def why(
        self, pair: PairId, image: ImageId, task_type: TaskTypePath, variant: str, further: str | None = None
    ) -> str:
        """Why a sample that is not among the accepted pairs any more is lost."""
        if gone_too := [self._dead[each] for each in (image, *images_in(further)) if each in self._dead]:
            return gone_too[0]
        if gone := self._leaves.gone(task_type):
            return gone
        match = (image, task_type)
        if match in self._not_tried:
            return Loss.NOT_TRIED
        if match in self._rejected:
            return Loss.NOT_FITTING if self._rejected[match] == Reason.NOT_FITTING else Loss.UNJUDGED
        if match not in self._fitting:
            return Loss.NO_ANSWER if self._nearest is None or match in self._nearest else Loss.PUSHED_OUT
        write = self._results.workspace.settings.write
        swaps = variant == MADE and write.swapped > 0
        if not swaps and variant not in forms_of(write, self._forms, image, task_type):
            return Reason.OTHER_VARIANT
        if pair in self._checked:
            return Loss.CHECKED
        if pair not in self._pairs and (*match, variant) in self._written:
            return Loss.WRITTEN_ANEW
        return Loss.NO_ANSWER

    def _read(self, stage: str, name: str, *columns: str) -> Iterator[tuple[str, ...]]:
        table = self._results.columns(self._result, stage, name)
        return zip(*(table[column].to_pylist() for column in columns), strict=True)

    def _matched(self, computed: Sequence[Match] | None) -> set[tuple[str, ...]] | None:
        """The images' nearest task types; None: not known, because some wait for an answer and no match is stored."""
        if computed is not None:
            return {(match.image, match.task_type) for match in computed}
        filtered = self._result.stages.get("filter")
        if filtered and not (filtered.counts and filtered.counts.pending):
            return self._fitting | self._rejected.keys()
        output = self._results.result.matches.get(self._result.id)
        if output is None:
            return None
        outputs = self._results.workspace.stage_outputs
        try:
            table = outputs.columns(outputs.refs(output)["matches"], Match)
        except NotFoundError:  # it was computed only to be looked at
            return None
        return set(zip(table["image"].to_pylist(), table["task_type"].to_pylist(), strict=True))
