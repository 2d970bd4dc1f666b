"""What a store holds under its settings: rows, funnel, bill. What release, report, status and the summary read.

Nothing is asked here: what has no answer yet is pending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.funnel import StageCounts, Tally, total
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.generation import ASKING_STAGES, TABLES, StageResult
from taskgalaxy_ops.pipeline import RunResult
from taskgalaxy_ops.records import Claim, FileReject, Image, ImageId, Pair, Reject, Relevant, Verdict, Vote
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal


@dataclass(slots=True)
class Bill:
    """What a store has paid for over its lifetime."""

    all: Tally = field(default_factory=Tally)
    by_stage: dict[str, Tally] = field(default_factory=dict)
    by_model: dict[str, Tally] = field(default_factory=dict)
    simulated: set[str] = field(default_factory=set)  # models whose replies said so themselves


def bill(galaxy: Galaxy) -> Bill:
    """Adds up every journal of the store: reads all of them."""
    found = Bill()
    for home in [keys.TAXONOMY_HOME, *(home.home for home in galaxy.registry.homes())]:
        for reply in Journal(galaxy.store, home).replies():
            stage = found.by_stage.setdefault(reply["stage"], Tally())
            model = found.by_model.setdefault(reply["model"], Tally())
            if reply["simulated"]:
                found.simulated.add(reply["model"])
            for tally in (found.all, stage, model):
                tally.add(reply)
    return found


class Harvest:
    """The rows of a run, whole or provisional, over all its homes."""

    def __init__(self, galaxy: Galaxy, result: RunResult | None = None) -> None:
        """``result``: of a run just made; None: what the journals hold, without asking."""
        self.galaxy = galaxy
        self.result = result or pipeline.generate(galaxy, ask=False, commit=False)

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

    @cached_property
    def claims(self) -> dict[ImageId, list[Claim]]:
        """The live sources' claims by image, each in order of source."""
        found: dict[ImageId, list[Claim]] = {}
        for claim in self.galaxy.registry.claims():
            found.setdefault(claim.image, []).append(claim)
        return found

    @cached_property
    def file_rejects(self) -> list[FileReject]:
        return self.galaxy.registry.rejects()

    @cached_property
    def images(self) -> dict[ImageId, Image]:
        """The live images."""
        return {image: seen for image, seen in self.galaxy.registry.housed().items() if image in self.claims}

    @cached_property
    def relevant(self) -> list[Relevant]:
        return self._rows("filter", "relevant")

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Every question-answer pair, by id."""
        return {pair.pair: pair for pair in self._rows("write", "pairs")}

    @cached_property
    def samples(self) -> list[Pair]:
        return self._rows("vote", "samples")

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        return {verdict.pair: verdict for verdict in self._rows("vote", "verdicts")}

    @cached_property
    def votes(self) -> dict[str, list[Vote]]:
        found: dict[str, list[Vote]] = {}
        for vote in self._rows("vote", "votes"):
            found.setdefault(vote.pair, []).append(vote)
        return found

    @cached_property
    def rejects(self) -> list[Reject]:
        """The rejects of filter, write and vote."""
        return [reject for stage in ASKING_STAGES for reject in self._rows(stage, "rejects")]

    @cached_property
    def funnel(self) -> list[StageCounts]:
        """Ingest (files), filter (matches), write (questions to write) and vote (pairs)."""
        kept = sum(len(claims) for claims in self.claims.values())
        refused = Counter(reject.reason for reject in self.file_rejects)
        stages = [StageCounts("ingest", kept + refused.total(), kept, dict(sorted(refused.items())))]
        for stage in ASKING_STAGES:
            parts = [home.stages[stage] for home in self.result.homes if stage in home.stages]
            stages.append(total(stage, [self._counts(part) for part in parts]))
        return stages

    def _counts(self, part: StageResult) -> StageCounts:
        if part.counts is not None or part.shard is None:
            return part.counts or StageCounts("", 0, 0)
        stats: Mapping[str, Any] = self.galaxy.shards.marker(part.shard)["stats"]
        return StageCounts(part.shard.stage, stats["units_in"], stats["units_out"], stats["rejects"])

    def _rows(self, stage: str, name: str) -> list[Any]:
        record = TABLES[stage][name]
        found: list[Any] = []
        for home in self.result.homes:
            if (part := home.stages.get(stage)) is not None:
                found += self.galaxy.shards.load(part.shard, name, record) if part.shard else part.rows[name]
        return found
