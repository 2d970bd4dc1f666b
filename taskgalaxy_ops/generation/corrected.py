"""The pairs that people's answers make of those that they found wrong, and what judges are asked about of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from taskgalaxy_ops.extensions import QUESTION_FORMS
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Pair, PairId, pair_id
from taskgalaxy_ops.storage.review_log import Reviews
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


def put_to_vote(workspace: Workspace, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that judges are asked about: those that were written, and people's answers where judges are asked."""
    reviews = workspace.judged_reviews
    if reviews is None:
        return list(pairs)
    known = {pair.pair for pair in pairs}
    return [*pairs, *(pair for pair in corrections(pairs, reviews) if pair.pair not in known)]


def answers_by_shard(workspace: Workspace) -> dict[str, str]:
    """By image shard, what people's answers to its pairs are known by, where judges are asked about any."""
    reviews = workspace.judged_reviews
    if reviews is None:
        return {}
    index, found = workspace.registry.known(), defaultdict[str, list[tuple[PairId, str]]](list)
    for pair, said in sorted(reviews.by_pair.items()):
        if (answer := reviews.correction(pair)) is not None and (shard := index.get(said[0].image)):
            found[shard].append((pair, answer))
    return {shard: fingerprint("corrections", answers) for shard, answers in found.items()}
