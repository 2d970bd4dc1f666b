"""People's votes on pairs: draw pairs for people to look at, take over what they say, revoke it, and count it.

Nothing here asks a model. A draw depends on the pairs and on what is asked for alone, so that it repeats, and a larger
one contains a smaller one.
"""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskgalaxy_ops.errors import ReviewError
from taskgalaxy_ops.generation.corrected import corrected
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.operations.judges import Probabilities, verdict_probabilities
from taskgalaxy_ops.records import Pair, PairId, Vote
from taskgalaxy_ops.release.agreement import krippendorff_alpha
from taskgalaxy_ops.release.vote_table import ballot_table
from taskgalaxy_ops.storage.review_log import UNSURE, VERDICTS, WRONG, Review, ReviewLog
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.text import clean
from taskgalaxy_ops.workspace import Workspace

BY = ("task_type", "branch", "form", "disagreement", "probability")  # what a draw can be stratified by
REVIEWER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")  # a pseudonym: neither a name with blanks nor an address
_BOUNDS = (0.5, 0.9, 0.99)  # of the probability of being right, between its strata
_MOST_TEXT = 10_000  # characters of a reason, or of an answer
_SHOWN = 20  # problems in an error's message


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A pair that was drawn for people to look at, with what the judges said."""

    pair: Pair  # its task type by its present path
    accepted: bool
    votes: Sequence[Vote]  # in the order of the judges' names
    stratum: Mapping[str, str]
    of: int  # pairs of the stratum


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A row that a person filled in."""

    place: str  # in the file, for messages: "line 7"
    pair: str
    reviewer: str
    verdict: str
    reason: str = ""
    answer: str = ""  # the right one, as the person gave it


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The outcome of an import."""

    votes: int  # that were added
    known: int  # that counted already
    unknown: tuple[str, ...] = ()  # places of rows about pairs that the store does not have, which were skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewer:
    """One person's votes that count."""

    reviewer: str
    verdicts: Mapping[str, int]
    corrections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What people said, all votes that count."""

    entry: int = 0  # the newest of the log; 0: there is none
    pairs: int = 0  # with a vote
    found_wrong: int = 0  # of them, by most of those who are sure
    reviewers: Sequence[Reviewer] = ()
    shared: int = 0  # pairs on which two or more are sure
    agreed: float | None = None  # of the couples of votes on them, the share that says the same; None: there are none
    alpha: float | None = None  # Krippendorff's, nominal; None: nothing varies


# --- draw


def draw_pairs(workspace: Workspace, number: int, by: Collection[str]) -> list[Drawn]:
    """``number`` of the pairs that judges have decided, accepted or not, or all if there are fewer.

    by: of ``BY``. Each stratum gives its first pair, by hash, before any gives a second, and so on; the strata follow
    by hash. So rare ones are drawn as often as frequent ones: ``of`` says by how much to weigh them. Memory grows with
    the strata, ``number`` pairs each.
    """
    results = RunResults(workspace)
    taxonomy = TaxonomyStore(workspace).version()
    likely = verdict_probabilities(workspace) if "probability" in by else None
    nearest: dict[tuple[str, ...], list[tuple[float, PairId]]] = {}
    sizes: Counter[tuple[str, ...]] = Counter()
    for result in results.result.shards:
        found: dict[tuple[str, ...], list[tuple[float, PairId]]] = {}
        for pair, told in _described(results, result, taxonomy, likely):
            stratum = tuple(told[name] for name in BY if name in by)
            sizes[stratum] += 1
            found.setdefault(stratum, []).append((draw("review", pair), pair))
        for stratum, drawn in found.items():
            nearest[stratum] = heapq.nsmallest(number, [*nearest.get(stratum, ()), *drawn])
    ranked = (
        (rank, draw("review stratum", *stratum), stratum, pair)
        for stratum, drawn in nearest.items()
        for rank, (_, pair) in enumerate(drawn)
    )
    chosen = {pair: stratum for _, _, stratum, pair in heapq.nsmallest(number, ranked)}
    drawn_pairs = _told(results, chosen.keys(), taxonomy)
    return [
        Drawn(**drawn_pairs[pair], stratum=dict(zip(sorted(by, key=BY.index), stratum, strict=True)), of=sizes[stratum])
        for pair, stratum in chosen.items()
    ]


def _described(
    results: RunResults,
    result: ShardResult,
    taxonomy: TaxonomyVersion,
    likely: Probabilities | None,
) -> Iterator[tuple[PairId, dict[str, str]]]:
    """Each pair of an image shard that has a verdict, and what of ``BY`` is true of it.

    likely: the probability of being right of each pair, by its votes; None: it is not wanted.
    """
    verdicts = results.columns(result, "vote", "verdicts").select(["pair", "accepted", "approvals", "votes"])
    columns = zip(*(column.to_pylist() for column in verdicts.columns), strict=True)
    decided = {pair: _disagreement(*verdict) for pair, *verdict in columns}
    known: dict[PairId, float | None] = {}
    if likely is not None:
        votes = results.columns(result, "vote", "votes", ("pair", "judge", "vote"))
        known = dict(likely(ballot_table(votes, [judge.name for judge in results.workspace.settings.judges])))
    pairs = results.columns(result, "write", "pairs", ("pair", "task_type", "variant"))
    for pair, task_type, form in zip(*(pairs[name].to_pylist() for name in pairs.column_names), strict=True):
        if pair in decided:
            shown = taxonomy.shown(task_type)
            yield (
                pair,
                {
                    "task_type": shown,
                    "branch": shown.partition("~")[0],
                    "form": form,
                    "disagreement": decided[pair],
                    "probability": _band(known.get(pair)),
                },
            )


def _band(probability: float | None) -> str:
    if probability is None:
        return "not known"
    return next((f"below {bound:.0%}" for bound in _BOUNDS if probability < bound), f"{_BOUNDS[-1]:.0%} or more")


def _disagreement(accepted: bool, approvals: int, votes: int) -> str:
    if 0 < approvals < votes:
        return "judges differ, accepted" if accepted else "judges differ, rejected"
    return "all approve" if approvals else "none approves"


def _told(results: RunResults, wanted: Collection[PairId], taxonomy: TaxonomyVersion) -> dict[PairId, dict[str, Any]]:
    """Pair, verdict and votes of these pairs."""
    pairs: dict[PairId, Pair] = {}
    accepted: dict[PairId, bool] = {}
    votes: dict[PairId, list[Vote]] = {}
    for result in results.result.shards:
        here = _rows_of(results.columns(result, "write", "pairs"), wanted)
        pairs |= {row["pair"]: Pair(**{**row, "task_type": taxonomy.shown(row["task_type"])}) for row in here}
        if here:
            verdicts = _rows_of(results.columns(result, "vote", "verdicts"), wanted)
            accepted |= {row["pair"]: row["accepted"] for row in verdicts}
            for row in _rows_of(results.columns(result, "vote", "votes"), wanted):
                votes.setdefault(row["pair"], []).append(Vote(**row))
    return {
        name: {
            "pair": pair,
            "accepted": accepted.get(name, False),
            "votes": sorted(votes.get(name, ()), key=lambda vote: vote.judge),
        }
        for name, pair in pairs.items()
    }


def _rows_of(table: pa.Table, wanted: Collection[PairId]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(
        pc.is_in(table["pair"], pa.array(sorted(wanted), pa.string()))
    ).to_pylist()
    return rows


# --- take over


def record(workspace: Workspace, rows: Sequence[Filled], *, skip_unknown: bool = False) -> Imported:
    """Add what people filled in to the log, all of it or nothing; what counts already adds nothing.

    skip_unknown: leave out rows about pairs that the store has no more, such as those that were written anew. Raises
    ReviewError with all that is wrong, each with its place in the file.
    """
    wanted = {row.pair for row in rows}
    pairs = _known_pairs(workspace, wanted)
    unknown = [row for row in rows if row.pair not in pairs]
    problems = [] if skip_unknown else [f"{row.place}: the store has no pair {row.pair[:64]!r} now" for row in unknown]
    given: dict[tuple[str, PairId], tuple[str, Review]] = {}
    for row in rows:
        if (pair := pairs.get(row.pair)) is None:
            continue
        if why := _wrong_with(row, pair):
            problems.append(f"{row.place}: {why}")
            continue
        review = _review(row, pair)
        place, other = given.setdefault((row.reviewer, row.pair), (row.place, review))
        if other.said != review.said:
            problems.append(f"{row.place}: {row.reviewer} says something else of this pair at {place}: keep one")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ReviewError(f"review import: nothing was imported, {len(problems)} row(s) are wrong.\n{shown}{more}")
    log = ReviewLog(workspace.store)
    added = log.add((review for _, review in given.values()), time.time())
    late = workspace.registry.denied().intersection(chain.from_iterable(review.images for review in added))
    if late:  # taken down meanwhile: a take-down may have read the log before
        log.erase(late)
    places = tuple(row.place for row in unknown)
    return Imported(votes=len(added), known=len(given) - len(added), unknown=places)


def _known_pairs(workspace: Workspace, wanted: Collection[PairId]) -> dict[PairId, Pair]:
    """Those of these pairs that the store has: what the teacher wrote, and what people's answers make of it."""
    results = RunResults(workspace)
    reviews = ReviewLog(workspace.store).read()
    sources = {reviews.written(pair) for pair in wanted} if reviews else set()
    found = {
        row["pair"]: Pair(**row)
        for result in results.result.shards
        for row in _rows_of(results.columns(result, "write", "pairs"), {*wanted, *sources})
    }
    waiting = list(found.values())
    while waiting:
        pair = waiting.pop()
        for review in reviews.by_pair.get(pair.pair, ()) if reviews else ():
            if review.answer is not None and (other := corrected(pair, review.answer)).pair not in found:
                found[other.pair] = other
                waiting.append(other)
    return found


def _wrong_with(row: Filled, pair: Pair) -> str | None:
    """Why a row cannot be taken over; None: it can."""
    if REVIEWER.fullmatch(row.reviewer) is None:
        return (
            f"reviewer {row.reviewer!r}: give a pseudonym of small letters, digits and _ . -, 32 at most"
            if row.reviewer
            else "it names no reviewer: fill in the column, or give --reviewer"
        )
    if row.verdict not in VERDICTS:
        return f"verdict {row.verdict!r}: fill in {', '.join(VERDICTS)}"
    if max(len(row.reason), len(row.answer)) > _MOST_TEXT:
        return f"a reason and an answer have {_MOST_TEXT:,} characters at most"
    if row.answer and row.verdict != WRONG:
        return f"it has a corrected answer, and the verdict {row.verdict}: only what is {WRONG} is corrected"
    if row.answer and pair.further_turns:
        return "a conversation has several answers, and none is corrected here: say in the reason which turn is wrong"
    if row.answer and corrected(pair, row.answer).answer in ("", pair.answer):
        return "the corrected answer is the pair's own, or empty"
    return None


def _review(row: Filled, pair: Pair) -> Review:
    other = corrected(pair, row.answer) if row.answer else None
    return Review(
        reviewer=row.reviewer,
        pair=pair.pair,
        image=pair.image,
        verdict=row.verdict,
        reason=neutral(clean(row.reason)),
        answer=other.answer if other else None,
        becomes=other.pair if other else None,
        further_images=pair.further_images,
    )


def revoke(workspace: Workspace, reviewer: str, pairs: Collection[str] | None) -> list[PairId]:
    """Revoke a person's votes on pairs, named by their ids or the beginnings of these; None: on all.

    Returns the pairs. Raises ReviewError where a name fits none of the pairs with a vote of this person, or several.
    """
    log = ReviewLog(workspace.store)
    mine = {review.pair for review in log.read() or () if review.reviewer == reviewer}
    chosen: set[PairId] | None = None if pairs is None else set()
    for name in pairs or ():
        fitting = [pair for pair in mine if pair.startswith(name)]
        if len(fitting) != 1:
            raise ReviewError(
                f"review revoke: {len(fitting)} votes of {reviewer!r} are on pairs that begin with {name!r}."
            )
        chosen = {*(chosen or ()), *fitting}
    return log.revoke(reviewer, chosen, time.time())


# --- count


def overview(workspace: Workspace) -> Overview:
    """Counts of the votes that count, by reviewer, and the reviewers' agreement on what they are sure of."""
    reviews = ReviewLog(workspace.store).read()
    if reviews is None:
        return Overview()
    verdicts: dict[str, Counter[str]] = {}
    corrections: Counter[str] = Counter()
    for review in reviews:
        verdicts.setdefault(review.reviewer, Counter())[review.verdict] += 1
        corrections[review.reviewer] += review.answer is not None
    sure = [
        [VERDICTS.index(review.verdict) for review in said if review.verdict != UNSURE]
        for said in reviews.by_pair.values()
    ]
    shared = [said for said in sure if len(said) > 1]
    couples = [(a, b) for said in shared for number, a in enumerate(said) for b in said[number + 1 :]]
    return Overview(
        entry=reviews.entry,
        pairs=len(reviews.by_pair),
        found_wrong=sum(map(reviews.found_wrong, reviews.by_pair)),
        reviewers=[
            Reviewer(reviewer=name, verdicts=dict(verdicts[name]), corrections=corrections[name])
            for name in sorted(verdicts)
        ],
        shared=len(shared),
        agreed=sum(a == b for a, b in couples) / len(couples) if couples else None,
        alpha=krippendorff_alpha(Counter(map(tuple, shared))),
    )
