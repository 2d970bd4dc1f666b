"""The log of people's votes on question-answer pairs. The last entry of (reviewer, pair) counts.

An entry holds all votes of one import, so that none is taken over by halves: ``{"kind": "votes", "at", "votes"}``. A
revocation is an entry, too: ``{"kind": "revoke", "at", "reviewer", "pairs": {pair: image}}``, with ``further_images``,
lists by pair, where some are about several.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from taskgalaxy_ops.records import ImageId, PairId, images_in
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry

RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"
VERDICTS = (RIGHT, WRONG, UNSURE)

_WORTH_FOLDING = 64  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One person's vote on a pair."""

    reviewer: str  # a pseudonym
    pair: PairId
    image: ImageId  # of the pair: a take-down finds the vote by it
    verdict: str  # one of VERDICTS
    reason: str = ""
    answer: str | None = None  # what the right answer is, where the person says it
    becomes: PairId | None = None  # the pair with that answer
    further_images: str | None = None  # of the pair, as ``records.Pair`` has them
    at: float = 0.0  # seconds since the epoch

    @property
    def images(self) -> tuple[ImageId, ...]:
        """The images that the pair is about."""
        return self.image, *images_in(self.further_images)

    @property
    def said(self) -> tuple[str, str, str | None]:
        """What a vote says: two with the same are one vote given twice."""
        return self.verdict, self.reason, self.answer


@dataclass(frozen=True, slots=True)
class Reviews:
    """What people say of pairs, as of one entry of the log."""

    entry: int  # number of the newest entry
    by_pair: Mapping[PairId, Sequence[Review]]  # the votes that count, the last one last
    corrections: Mapping[PairId, PairId]  # by the pair with a corrected answer, even one revoked: the pair it corrects

    def found_wrong(self, pair: PairId) -> bool:
        """Whether most of those who are sure find a pair wrong; where as many find it right, the last one decides."""
        sure = [review.verdict for review in self.by_pair.get(pair, ()) if review.verdict != UNSURE]
        return 2 * sure.count(WRONG) > len(sure) - (sure[-1:] == [WRONG])

    def verdicts(self) -> dict[PairId, bool]:
        """Whether people find a pair right, of the pairs of which somebody is sure."""
        sure = (pair for pair, said in self.by_pair.items() if any(review.verdict != UNSURE for review in said))
        return {pair: not self.found_wrong(pair) for pair in sure}

    def correction(self, pair: PairId) -> str | None:
        """The answer that takes the place of a pair's: the last one that somebody gave who finds it wrong.

        None: it is not found wrong, or nobody gave one.
        """
        if not self.found_wrong(pair):
            return None
        return next((review.answer for review in reversed(self.by_pair[pair]) if review.answer is not None), None)

    def written(self, pair: PairId) -> PairId:
        """The pair that the teacher wrote, where people's answers made this one of it; else the pair itself."""
        return _upwards(pair, self.corrections)[-1]

    def __iter__(self) -> Iterator[Review]:
        """The votes that count."""
        return (review for reviews in self.by_pair.values() for review in reviews)


class ReviewLog:
    """Reads and extends the log of a store."""

    def __init__(self, store: Store) -> None:
        self._log = Log(store, keys.REVIEWS_LOG)

    def read(self) -> Reviews | None:
        """What people say now; None: nobody has said anything."""
        entries = self._log.read()
        return _standing(self._log.last, entries) if entries else None

    def add(self, reviews: Iterable[Review], at: float) -> list[Review]:
        """Append votes as one entry, without those that say what counts already; returns the others."""
        given = list(reviews)
        new: list[Review] = []

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            known = {(each.reviewer, each.pair): each.said for each in _standing(0, entries)}
            new[:] = [each for each in given if known.get((each.reviewer, each.pair)) != each.said]
            return {"kind": "votes", "at": at, "votes": [_row(each) for each in new]} if new else None

        self._log.append_if(decide)
        return new

    def revoke(self, reviewer: str, pairs: Collection[PairId] | None, at: float) -> list[PairId]:
        """Revoke a person's votes on these pairs (None: all of them); returns the pairs on which one counted."""
        revoked: dict[PairId, ImageId] = {}
        further: dict[PairId, Sequence[ImageId]] = {}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            revoked.clear()
            further.clear()
            for each in _standing(0, entries):
                if each.reviewer == reviewer and (pairs is None or each.pair in pairs):
                    revoked[each.pair] = each.image
                    further.update({each.pair: images_in(each.further_images)} if each.further_images else {})
            told = {"kind": "revoke", "at": at, "reviewer": reviewer, "pairs": revoked}
            return {**told, **({"further_images": further} if further else {})} if revoked else None

        self._log.append_if(decide)
        return sorted(revoked)

    def images(self) -> set[ImageId]:
        """The images that any entry names."""
        return {image for entry in self._log.read() for image in _images(entry.body)}

    def erase(self, gone: Collection[ImageId]) -> None:
        """Erase all that was said of these images' pairs. The same call continues one that was interrupted."""
        if self.images().isdisjoint(gone):
            self._log.sweep()
        else:
            self._log.compact(lambda entries: [kept for entry in entries if (kept := _without(entry, set(gone)))])

    def compact(self) -> None:
        """Fold a long log into a base; every entry stays."""
        if len(self._log.read()) >= _WORTH_FOLDING:
            self._log.compact()


def _row(review: Review) -> dict[str, Any]:
    told = asdict(review)
    return {name: value for name, value in told.items() if name != "at" and value not in (None, "")}


def _images(body: Mapping[str, Any]) -> Iterable[ImageId]:
    if body["kind"] == "revoke":
        return chain(body["pairs"].values(), *body.get("further_images", {}).values())
    return chain.from_iterable(map(_of_vote, body["votes"]))


def _of_vote(vote: Mapping[str, Any]) -> tuple[ImageId, ...]:
    return vote["image"], *images_in(vote.get("further_images"))


def _without(entry: LogEntry, gone: set[ImageId]) -> LogEntry | None:
    """An entry without what it says of these images; None: it says nothing else."""
    body = entry.body
    if body["kind"] == "revoke":
        further = body.get("further_images", {})
        images = {pair: {image, *further.get(pair, ())} for pair, image in body["pairs"].items()}
        kept: Any = {pair: image for pair, image in body["pairs"].items() if gone.isdisjoint(images[pair])}
        left = {pair: others for pair, others in further.items() if pair in kept}
        told = {name: value for name, value in body.items() if name != "further_images"}
        told |= {"pairs": kept, **({"further_images": left} if left else {})}
        return LogEntry(entry.number, told) if kept else None
    kept = [vote for vote in body["votes"] if gone.isdisjoint(_of_vote(vote))]
    return LogEntry(entry.number, {**body, "votes": kept}) if kept else None


def _upwards(pair: PairId, corrections: Mapping[PairId, PairId]) -> list[PairId]:
    """A pair, the pair that it corrects, and so on. An answer may be that of one of them: it is no correction then."""
    found = [pair]
    while found[-1] in corrections:
        found.append(corrections[found[-1]])
    return found


def _standing(number: int, entries: Iterable[LogEntry]) -> Reviews:
    by_pair: dict[PairId, dict[str, Review]] = {}
    corrections: dict[PairId, PairId] = {}
    for entry in entries:
        body = entry.body
        if body["kind"] == "revoke":
            for pair in body["pairs"]:
                by_pair.get(pair, {}).pop(body["reviewer"], None)
            continue
        for vote in body["votes"]:
            review = Review(**vote, at=body["at"])
            said = by_pair.setdefault(review.pair, {})
            said.pop(review.reviewer, None)  # so that the last vote is the last of the pair
            said[review.reviewer] = review
            if review.becomes is not None and review.becomes not in _upwards(review.pair, corrections):
                corrections.setdefault(review.becomes, review.pair)
    standing = {pair: tuple(said.values()) for pair, said in by_pair.items() if said}
    return Reviews(number, standing, corrections)
