"""The results of a run over all its image shards: rows and funnel, for release, reports and the summary.

No model is asked here: a unit without an answer is pending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from taskgalaxy_ops.funnel import StageCounts, total
from taskgalaxy_ops.generation.bill import Bill, bill
from taskgalaxy_ops.generation.lost import Lost, lost
from taskgalaxy_ops.generation.run import RunOptions, RunResult, generate
from taskgalaxy_ops.generation.shard_run import ShardResult, StageResult
from taskgalaxy_ops.generation.stages import ASKING, STAGE
from taskgalaxy_ops.generation.targets import TargetCounts
from taskgalaxy_ops.records import Claim, FileReject, Image, ImageId, Pair, Reject, Relevant, Verdict, Vote
from taskgalaxy_ops.storage.parquet import to_table
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


class RunResults:
    """The rows of a run over all its image shards, complete or provisional (while something is pending)."""

    def __init__(self, workspace: Workspace, result: RunResult | None = None) -> None:
        """result: of a run that was just made; None: of the answers that the journals hold."""
        self.workspace = workspace
        # The state before the rows are read: a release made of them compares it with the state afterwards.
        self.denied = workspace.registry.denied()
        self.result = result or generate(workspace, RunOptions(ask=False, commit=False))

    @cached_property
    def targets(self) -> TargetCounts | None:
        """How the task types stand, of the whole store; None: the settings have no targets."""
        found = self.result.targets
        return found.counts(TaxonomyStore(self.workspace).version().asked()) if found else None

    @property
    def pending(self) -> int:
        """Units without an answer."""
        return self.result.pending

    @cached_property
    def lost(self) -> Lost:
        """Units that ended without an answer for a reason that is ours or a model's."""
        return lost(counts for counts in self.funnel if counts.stage in ASKING)

    @property
    def lost_too_many(self) -> bool:
        """Whether more was lost than the settings take as usual."""
        return self.lost.share > self.workspace.settings.run.lost_share

    @cached_property
    def paid(self) -> Bill:
        """What the store has paid for."""
        return bill(self.workspace)

    @property
    def simulated(self) -> bool:
        """Whether a model of the settings is simulated: by the settings, or by what it replied."""
        settings = self.workspace.settings
        names = {model.name for model in settings.models}
        return settings.simulated or not names.isdisjoint(self.paid.simulated)

    # One image shard at a time, so that memory does not grow with the number of images: for releases and pages.

    def shards(self) -> Iterator[tuple[ShardResult, ImageShard]]:
        """The result of each image shard, with the image shard."""
        shards = {shard.id: shard for shard in self.workspace.registry.shards()}
        return ((result, shards[result.id]) for result in self.result.shards)

    def columns(self, shard: ShardResult, stage: str, name: str, only: Collection[str] = ()) -> pa.Table:
        """One table of an image shard's stage, as Arrow; ``only``: these of its columns."""
        part, record = shard.stages.get(stage), STAGE[stage].tables[name]
        if part is None or part.stage_output is None:
            rows = to_table(part.rows[name] if part else [], record)
            return rows.select(list(only)) if only else rows
        stage_outputs = self.workspace.stage_outputs
        return stage_outputs.columns(stage_outputs.refs(part.stage_output)[name], record, only)

    def shown_samples(self, shard: ShardResult, taxonomy: TaxonomyVersion) -> pa.Table:
        """An image shard's samples as Arrow, with the present paths of their task types."""
        return self.shown(self.columns(shard, "vote", "samples"), taxonomy)

    def shown_pairs(self, shard: ShardResult, taxonomy: TaxonomyVersion) -> pa.Table:
        """The same of an image shard's pairs, those that were voted down, too."""
        return self.shown(self.columns(shard, "write", "pairs"), taxonomy)

    @staticmethod
    def shown(samples: pa.Table, taxonomy: TaxonomyVersion) -> pa.Table:
        """Pairs with the present paths of their task types."""
        place = samples.schema.get_field_index("task_type")
        paths = pa.array(map(taxonomy.shown, samples["task_type"].to_pylist()), pa.string())
        return samples.set_column(place, samples.schema.field(place), paths)

    def rows(self, shard: ShardResult, stage: str, name: str) -> list[Any]:
        """One table of an image shard's stage, as records."""
        part = shard.stages.get(stage)
        if part is None or part.stage_output is None:
            return part.rows[name] if part else []
        return self.workspace.stage_outputs.load(part.stage_output, name, STAGE[stage].tables[name])

    def count(self, stage: str, name: str) -> int:
        """The number of rows of a table over all image shards; reads no rows of a committed stage output."""
        parts = [shard.stages[stage] for shard in self.result.shards if stage in shard.stages]
        return sum(
            self.workspace.stage_outputs.refs(part.stage_output)[name].rows
            if part.stage_output
            else len(part.rows[name])
            for part in parts
        )

    @cached_property
    def live_images(self) -> int:
        """The number of images that a live source claims."""
        return sum(
            len({claim.image for claim in self.workspace.registry.claims_of(shard.id)}) for _, shard in self.shards()
        )

    @cached_property
    def sources(self) -> list[str]:
        """The sources that claim an image, in order of name."""
        return [name for name, scan in self.workspace.registry.scans().items() if scan.claims.rows]

    @cached_property
    def task_types(self) -> int:
        """The number of task types that have samples."""
        covered: set[str] = set()
        for shard in self.result.shards:
            covered.update(self.columns(shard, "vote", "samples")["task_type"].unique().to_pylist())
        return len(covered)

    @cached_property
    def funnel(self) -> list[StageCounts]:
        """The counts of ingest (files), filter (matches), write (questions to write) and vote (pairs)."""
        scans = self.workspace.registry.scans().values()
        kept = sum(scan.claims.rows for scan in scans)
        refused = Counter(reject.reason for reject in self.file_rejects)
        stages = [StageCounts("ingest", kept + refused.total(), kept, dict(sorted(refused.items())))]
        for stage in ASKING:
            parts = [shard.stages[stage] for shard in self.result.shards if stage in shard.stages]
            stages.append(total(stage, (self._counts(part) for part in parts)))
        return stages

    def _counts(self, part: StageResult) -> StageCounts:
        if part.counts is not None or part.stage_output is None:
            return part.counts or StageCounts("", 0, 0)
        stats: Mapping[str, Any] = self.workspace.stage_outputs.marker(part.stage_output)["stats"]
        return StageCounts(part.stage_output.stage, stats["units_in"], stats["units_out"], stats["rejects"])

    # All rows in memory: for a pilot's few images, and to look up single things.

    @cached_property
    def claims(self) -> dict[ImageId, list[Claim]]:
        """The live sources' claims by image, each in order of source."""
        by_image: dict[ImageId, list[Claim]] = {}
        for claim in self.workspace.registry.claims():
            by_image.setdefault(claim.image, []).append(claim)
        return by_image

    @cached_property
    def file_rejects(self) -> list[FileReject]:
        return list(self.workspace.registry.rejects())

    @cached_property
    def images(self) -> dict[ImageId, Image]:
        """The live images."""
        return {image: seen for image, seen in self.workspace.registry.image_index().items() if image in self.claims}

    @cached_property
    def relevant(self) -> list[Relevant]:
        return [*self._all("filter", "relevant")]

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Every question-answer pair, by id."""
        return {pair.pair: pair for pair in self._all("write", "pairs")}

    @cached_property
    def samples(self) -> list[Pair]:
        return [*self._all("vote", "samples")]

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        return {verdict.pair: verdict for verdict in self._all("vote", "verdicts")}

    @cached_property
    def votes(self) -> dict[str, list[Vote]]:
        by_pair: dict[str, list[Vote]] = {}
        for vote in self._all("vote", "votes"):
            by_pair.setdefault(vote.pair, []).append(vote)
        return by_pair

    @cached_property
    def rejects(self) -> list[Reject]:
        """The rejects of filter, write and vote."""
        return [reject for stage in ASKING for reject in self._all(stage, "rejects")]

    def _all(self, stage: str, name: str) -> Iterable[Any]:
        return (row for shard in self.result.shards for row in self.rows(shard, stage, name))
