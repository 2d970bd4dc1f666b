"""What people's votes change of a release: pairs that they found wrong, and pairs with the answers that they gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from taskgalaxy_ops.extensions import QUESTION_FORMS
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Pair, PairId, pair_id
from taskgalaxy_ops.storage.review_log import RIGHT, WRONG, Reviews
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.text import clean
from taskgalaxy_ops.workspace import Workspace


def corrected(pair: Pair, answer: str) -> Pair:
    """The pair with a person's answer. Reasoning led to another answer, so it goes, and the pair is plain then."""
    said = neutral(clean(answer))
    language = QUESTION_FORMS.split(pair.variant)[1]
    variant = pair.variant if pair.reasoning is None else f"plain-{language}" if language else "plain"
    identity = pair_id(pair.images, pair.task_type, variant, pair.question, said, None)
    return replace(pair, pair=identity, variant=variant, answer=said, reasoning=None)


def corrections(pairs: Iterable[Pair], reviews: Reviews) -> list[Pair]:
    """The pairs that take the place of those that people found wrong, in order of id.

    One that was found wrong itself is among them, a reject like any other, and its own correction beside it.
    """
    waiting = list(pairs)
    found: dict[PairId, Pair] = {}
    while waiting:
        pair = waiting.pop()
        if (answer := reviews.correction(pair.pair)) is not None:
            other = corrected(pair, answer)
            if other.pair not in found:
                found[other.pair] = other
                waiting.append(other)
    return [found[pair] for pair in sorted(found)]


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
        """The pairs that people's answers add to those of an image shard.

        taxonomy: by which their task types are shown; None: as they are asked.
        """
        if self._reviews is None or shard.id not in self._shards:
            return []
        found = corrections(self._results.rows(shard, "write", "pairs"), self._reviews)
        return [replace(each, task_type=taxonomy.shown(each.task_type)) for each in found] if taxonomy else found


def review_rules(workspace: Workspace) -> dict[str, Any]:
    """The rule by which people's votes decide, and the entry of their log up to which; {}: they decide nothing."""
    reviews = workspace.deciding_reviews
    return {} if reviews is None else {"review.rule": workspace.settings.review.rule, "review.entry": reviews.entry}
