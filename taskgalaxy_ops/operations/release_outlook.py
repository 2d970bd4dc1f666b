"""What the next release would lose against the latest one, by reason, before anybody makes it; asks no model.

Under today's settings and taxonomy: the stages' outputs are made of the answers that the journals hold, as a run would
make them, and selected as a release would. Whether any of this can cost a sample is known from a listing and one cached
object (``MadeOf``); only then are rows read.

Of a taxonomy that is only proposed: the latest release's images are matched with its task types. Nothing else of the
next release depends on the taxonomy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.generation import lanes, match_run
from taskgalaxy_ops.generation import run as generation_run
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.run import RunResult
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, matched, store_state
from taskgalaxy_ops.records import Image, ImageId, Match, Node, TaskTypePath, Vote, images_in
from taskgalaxy_ops.release import changes, published_rows
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.release.looks import looks_for, question_encoder
from taskgalaxy_ops.release.publish import Published, published
from taskgalaxy_ops.release.published_rows import MadeOf
from taskgalaxy_ops.release.reviewed import Reviewed
from taskgalaxy_ops.release.sqlite_staging import database
from taskgalaxy_ops.storage.parquet import to_table
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import asked_paths
from taskgalaxy_ops.workspace import Workspace

_MOST_IMAGES = 20_000  # unsettled ones beside those that are planned: their rows are held in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOutlook:
    """What the next release would lose of the latest one's samples."""

    since: str  # name of the latest release
    samples: int  # that it holds
    lost: Mapping[str, int] = field(default_factory=dict)  # by a Loss, or a Reason of the release's rules
    open: int = 0  # of its samples, those that are accepted again or lost when something is answered

    @property
    def losses(self) -> int:
        return sum(self.lost.values())


@dataclass(frozen=True, slots=True)
class Looked:
    """Image shards that were looked through: what the stages make of the answers that exist."""

    matches: Mapping[str, StageOutput] = field(default_factory=dict)
    computed: Mapping[str, Sequence[Match]] = field(default_factory=dict)  # matches that are not committed
    results: Mapping[str, ShardResult] = field(default_factory=dict)


def look_through(view: Workspace, state: StoreState, shards: Sequence[ShardState]) -> Looked:
    """Look through image shards. Those without an embedding are left out: no image is encoded."""
    matches, computed = matched(view, state, shards)
    found = generation_run.look_through(view, matches, state.by_shard, computed, state.targets)
    return Looked(matches, computed, {each.id: each for each in found.shards})


def release_outlook(workspace: Workspace, nodes: Sequence[Node] | None = None) -> ReleaseOutlook | None:
    """What the next release would lose against the latest one; None: there is none, or it cannot be read.

    nodes: those of a proposed taxonomy: what that alone would cost; None: today's settings and taxonomy. Encodes task
    types that have no embedding yet, and stores none. Raises TaskGalaxyError.
    """
    view = workspace.snapshot()
    latest = next(reversed(published(view)), None)
    if latest is None:
        return None
    try:
        if nodes is not None:
            return _of_growth(view, latest, nodes)
        return look_ahead(view, store_state(view, lanes.shards_of(view, None)), Looked())
    except DamageError:  # `taskgalaxy verify` tells of it
        return None


def look_ahead(view: Workspace, planned: StoreState, looked: Looked) -> ReleaseOutlook | None:
    """The same with the task types of ``planned``, whose unsettled image shards were looked through already.

    None, too, where so many other images wait to be run that looking them through would take long.
    """
    latest = next(reversed(published(view)), None)
    if latest is None:
        return None
    everything = view.registry.with_claims(lanes.shards_of(view, None))
    state = planned
    if len(planned.shards) < len(everything):
        state = store_state(view, everything, types=planned.types)
    made_of = published_rows.made_of(view.store, latest.version)
    if made_of is not None and _costs_nothing(view, state, made_of):
        return ReleaseOutlook(since=latest.name, samples=latest.samples - latest.withdrawn)
    others = sum(each.live for each in state.shards if not each.settled and each.shard.id not in looked.results)
    if others > _MOST_IMAGES:
        return None
    try:
        return _by_rows(view, latest, state, looked)
    except DamageError:  # `taskgalaxy verify` tells of it
        return None


def _costs_nothing(view: Workspace, state: StoreState, made_of: MadeOf) -> bool:
    """Whether what the latest release was made of is as it was, and so are its rules.

    New image shards do not count. Under a cap, or where images look alike, their samples may take the place of others;
    the release does not shrink by that.
    """
    now = {each.shard.id: each.stage_outputs["vote"].output for each in state.shards if each.settled}
    if made_of.rules != changes.selecting(view):
        return False
    return all(output is not None and now.get(shard) == output for shard, output in made_of.outputs.items())


def _by_rows(view: Workspace, latest: Published, state: StoreState, looked: Looked) -> ReleaseOutlook:
    rest = look_through(view, state, [each for each in state.shards if each.shard.id not in looked.results])
    found = {**looked.results, **rest.results}
    shards = [found.get(each.shard.id, ShardResult(id=each.shard.id)) for each in state.shards]
    matches = {**looked.matches, **rest.matches}
    results = RunResults(view, RunResult(shards=shards, matches=matches, targets=state.targets))
    inputs = _inputs(results, state.types)
    with release.select_samples(inputs, view.settings.release) as selection:
        against = changes.compared(selection, results, latest, {**looked.computed, **rest.computed}, state.types.ids)
    lost = {why: number for why, number in against.lost.items() if why not in {Loss.NO_ANSWER, Loss.TAKEN_DOWN}}
    taken_down = against.lost.get(Loss.TAKEN_DOWN, 0) - latest.withdrawn  # what was withdrawn is not in it any more
    if taken_down:
        lost[Loss.TAKEN_DOWN] = taken_down
    outlook = ReleaseOutlook(
        since=latest.name,
        samples=latest.samples - latest.withdrawn,
        lost=lost,
        open=against.lost.get(Loss.NO_ANSWER, 0),
    )
    if not lost and not outlook.open:  # the next look need not read the rows again
        published_rows.keep_made_of(view.store, latest.version, changes.made_of(results))
    return outlook


def _inputs(results: RunResults, types: EmbeddingMatrix) -> release.ReleaseInputs:
    """What a release would select from; no votes, no facts for a card, and nothing from which files are made."""
    settings = results.workspace.settings
    return release.ReleaseInputs(
        shards=_rows(results),
        read_image=lambda image: b"",
        image_uri=lambda image: "",
        stage_counts=(),
        taxonomy=release.TaxonomySummary(0, types.ids, {}),
        teacher=settings.teacher,
        judges=settings.judges,
        encoder={},
        prompts={},
        simulated=True,
        looks=looks_for(results.workspace),
        encode_questions=question_encoder(results.workspace),
    )


def _rows(results: RunResults) -> Iterator[release.ShardRows]:
    workspace, reviewed, no_votes = results.workspace, Reviewed(results), to_table([], Vote)
    for result, shard in results.shards():
        yield release.ShardRows(
            samples=results.columns(result, "vote", "samples"),
            votes=no_votes,
            verdicts=results.columns(result, "vote", "verdicts"),
            images=workspace.stage_outputs.columns(shard.images, Image),
            claims=workspace.registry.claims_of(shard.id),
            corrections=reviewed.corrections(result),
            found_wrong=reviewed.found_wrong,
        )


# --- a proposed taxonomy


def _of_growth(view: Workspace, latest: Published, nodes: Sequence[Node]) -> ReleaseOutlook:
    """What the latest release's images would lose if they were matched with these nodes' task types.

    What is lost under the newest taxonomy, too, does not count: of an image that is in no release any more, or that has
    another task type among its nearest since.
    """
    taxonomy = TaxonomyStore(view)
    now = taxonomy.embeddings(None, keep=False)
    types = taxonomy.embed_labels(asked_paths(nodes), keep=False)
    newest = taxonomy.version()
    leaves = changes.Leaves(types.ids, newest)
    rows = database()
    try:
        changes.load_earlier(rows, view, latest, newest)
        concerned = changes.by_shard(rows, view)
        rows.execute("UPDATE earlier SET why = NULL WHERE why NOT NULL")  # lost already
        there = {shard.id: shard for shard in view.registry.with_claims(lanes.shards_of(view, None))}
        dead, keys = view.registry.dead_hashes(), StageKeys(view)
        for shard in (there[each] for each in concerned if each in there):
            gone = changes.dead_images(view, shard, dead)
            held = changes.of_shard(rows, shard.id)
            samples = [row for row in held if gone.keys().isdisjoint((row[1], *images_in(row[4])))]
            key = str(keys.embed(shard, dead.get(shard.id)).key)
            embedded = view.stage_outputs.committed(shard.id).get(("embed", key))
            if embedded is None:
                changes.set_why(
                    rows, ((leaves.gone(task_type) or Loss.NO_ANSWER, pair) for pair, _, task_type, *_ in samples)
                )
                continue
            images = {image for _, image, *_ in samples}
            before, after = (_nearest(view, shard, embedded, each, images) for each in (now, types))
            pushed = before - after
            whys = (
                (leaves.gone(task_type) or Loss.PUSHED_OUT, pair)
                for pair, image, task_type, *_ in samples
                if (image, task_type) in pushed
            )
            changes.set_why(rows, whys)
        lost = changes.counted(rows)
    finally:
        rows.close()
    open_ = lost.pop(Loss.NO_ANSWER, 0)
    return ReleaseOutlook(since=latest.name, samples=latest.samples - latest.withdrawn, lost=lost, open=open_)


def _nearest(
    view: Workspace, shard: ImageShard, embedded: StageOutput, types: EmbeddingMatrix, images: set[ImageId]
) -> set[tuple[ImageId, TaskTypePath]]:
    """The task types nearest to these images of a shard; its others are not matched."""
    others = set(view.registry.image_ids(shard)) - images
    return {(each.image, each.task_type) for each in match_run.match_shard(view, embedded, types, others)}
