"""What people's votes change of a release: pairs that they found wrong, and pairs with the answers that they gave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taskgalaxy_ops.generation.corrected import corrections
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.records import Pair, PairId
from taskgalaxy_ops.storage.review_log import RIGHT, WRONG
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.workspace import Workspace


class Reviewed:
    """What people's votes change, by image shard. Without votes that decide anything, nothing is read."""

    def __init__(self, results: RunResults) -> None:
        self._results = results
        self._reviews = reviews = results.workspace.deciding_reviews
        self.found_wrong: dict[PairId, str] = {}  # how they voted, by pair
        self._shards: set[str] = set()  # that hold pairs with a corrected answer
        if reviews is not None:
            index = results.workspace.registry.known()
            for pair, said in reviews.by_pair.items():
                if reviews.found_wrong(pair):
                    verdicts = [review.verdict for review in said]
                    self.found_wrong[pair] = f"people: {verdicts.count(WRONG)} wrong, {verdicts.count(RIGHT)} right"
                if reviews.correction(pair) is not None and (shard := index.get(said[0].image)):
                    self._shards.add(shard)

    def corrections(self, shard: ShardResult, taxonomy: TaxonomyVersion | None = None) -> list[Pair]:
        """The pairs that people's answers add to those of an image shard, accepted by judges where these are asked.

        taxonomy: by which their task types are shown; None: as they are asked.
        """
        if self._reviews is None or shard.id not in self._shards:
            return []
        found = corrections(self._results.rows(shard, "write", "pairs"), self._reviews)
        if self._results.workspace.judged_reviews is not None:
            accepted = set(self._results.columns(shard, "vote", "samples", ("pair",))["pair"].to_pylist())
            found = [pair for pair in found if pair.pair in accepted]
        return [replace(each, task_type=taxonomy.shown(each.task_type)) for each in found] if taxonomy else found


def review_rules(workspace: Workspace) -> dict[str, Any]:
    """The rule by which people's votes decide, and the entry of their log up to which; {}: they decide nothing."""
    reviews, chosen = workspace.deciding_reviews, workspace.settings.review
    if reviews is None:
        return {}
    judged = {} if chosen.corrections == "accepted" else {"review.corrections": chosen.corrections}
    return {"review.rule": chosen.rule, **judged, "review.entry": reviews.entry}
