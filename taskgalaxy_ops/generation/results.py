"""What a run came to over all its image shards: rows and funnel. What release, reports and the summary read.

Nothing is asked here: what has no answer yet is pending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from taskgalaxy_ops.funnel import StageCounts, total
from taskgalaxy_ops.generation.bill import Bill, bill
from taskgalaxy_ops.generation.run import RunResult, generate
from taskgalaxy_ops.generation.shard_run import HomeResult, StageResult
from taskgalaxy_ops.generation.stages import ASKING_STAGES, TABLES
from taskgalaxy_ops.records import Claim, FileReject, Image, ImageId, Pair, Reject, Relevant, Verdict, Vote
from taskgalaxy_ops.storage.parquet import to_table
from taskgalaxy_ops.storage.registry.state import Home
from taskgalaxy_ops.workspace import Galaxy


class Harvest:
    """The rows of a run, whole or provisional, over all its homes."""

    def __init__(self, galaxy: Galaxy, result: RunResult | None = None) -> None:
        """``result``: of a run just made; None: what the journals hold, without asking."""
        self.galaxy = galaxy
        self.denied = galaxy.registry.denied()  # as it stood: what is made of the rows is held against it once more
        self.result = result or generate(galaxy, ask=False, commit=False)

    @property
    def pending(self) -> int:
        """Units without an answer."""
        return self.result.pending

    @cached_property
    def paid(self) -> Bill:
        """What the store has paid for."""
        return bill(self.galaxy)

    @property
    def simulated(self) -> bool:
        """Whether a model of the settings is simulated: by the settings, or by what it replied."""
        settings = self.galaxy.settings
        names = {model.name for model in (settings.teacher, *settings.judges)}
        return settings.simulated or not names.isdisjoint(self.paid.simulated)

    # Home by home: what a release, a page and the summaries are made of, whatever the number of images.

    def homes(self) -> Iterator[tuple[HomeResult, Home]]:
        """What each home came to, and its images."""
        homes = {home.home: home for home in self.galaxy.registry.homes()}
        return ((found, homes[found.home]) for found in self.result.homes)

    def columns(self, home: HomeResult, stage: str, name: str) -> pa.Table:
        """One table of a home."""
        part, record = home.stages.get(stage), TABLES[stage][name]
        if part is None or part.shard is None:
            return to_table(part.rows[name] if part else [], record)
        return self.galaxy.shards.columns(self.galaxy.shards.refs(part.shard)[name], record)

    def rows(self, home: HomeResult, stage: str, name: str) -> list[Any]:
        """The same as records."""
        part = home.stages.get(stage)
        if part is None or part.shard is None:
            return part.rows[name] if part else []
        return self.galaxy.shards.load(part.shard, name, TABLES[stage][name])

    def count(self, stage: str, name: str) -> int:
        """Rows of a table over all homes; reads none of a committed shard."""
        parts = [home.stages[stage] for home in self.result.homes if stage in home.stages]
        return sum(
            self.galaxy.shards.refs(part.shard)[name].rows if part.shard else len(part.rows[name]) for part in parts
        )

    @cached_property
    def live_images(self) -> int:
        """How many images there are that a live source claims."""
        return sum(
            len({claim.image for claim in self.galaxy.registry.claims_of(home.home)}) for _, home in self.homes()
        )

    @cached_property
    def sources(self) -> list[str]:
        """The sources that claim an image, in order of name."""
        return [name for name, scan in self.galaxy.registry.scans().items() if scan.claims.rows]

    @cached_property
    def task_types(self) -> int:
        """How many task types have samples."""
        found: set[str] = set()
        for home in self.result.homes:
            found.update(self.columns(home, "vote", "samples")["task_type"].unique().to_pylist())
        return len(found)

    @cached_property
    def funnel(self) -> list[StageCounts]:
        """Ingest (files), filter (matches), write (questions to write) and vote (pairs)."""
        scans = self.galaxy.registry.scans().values()
        kept = sum(scan.claims.rows for scan in scans)
        refused = Counter(reject.reason for reject in self.file_rejects)
        stages = [StageCounts("ingest", kept + refused.total(), kept, dict(sorted(refused.items())))]
        for stage in ASKING_STAGES:
            parts = [home.stages[stage] for home in self.result.homes if stage in home.stages]
            stages.append(total(stage, (self._counts(part) for part in parts)))
        return stages

    def _counts(self, part: StageResult) -> StageCounts:
        if part.counts is not None or part.shard is None:
            return part.counts or StageCounts("", 0, 0)
        stats: Mapping[str, Any] = self.galaxy.shards.marker(part.shard)["stats"]
        return StageCounts(part.shard.stage, stats["units_in"], stats["units_out"], stats["rejects"])

    # All of them, in memory: for a pilot's few images, and to look one thing up.

    @cached_property
    def claims(self) -> dict[ImageId, list[Claim]]:
        """The live sources' claims by image, each in order of source."""
        found: dict[ImageId, list[Claim]] = {}
        for claim in self.galaxy.registry.claims():
            found.setdefault(claim.image, []).append(claim)
        return found

    @cached_property
    def file_rejects(self) -> list[FileReject]:
        return list(self.galaxy.registry.rejects())

    @cached_property
    def images(self) -> dict[ImageId, Image]:
        """The live images."""
        return {image: seen for image, seen in self.galaxy.registry.housed().items() if image in self.claims}

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
        found: dict[str, list[Vote]] = {}
        for vote in self._all("vote", "votes"):
            found.setdefault(vote.pair, []).append(vote)
        return found

    @cached_property
    def rejects(self) -> list[Reject]:
        """The rejects of filter, write and vote."""
        return [reject for stage in ASKING_STAGES for reject in self._all(stage, "rejects")]

    def _all(self, stage: str, name: str) -> Iterable[Any]:
        return (row for home in self.result.homes for row in self.rows(home, stage, name))
