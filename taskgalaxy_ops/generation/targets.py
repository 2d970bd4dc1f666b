"""Targets: how far each task type goes through its candidate images, so that no more is asked than its target takes.

Pure. A task type's candidates are the images that have it among their nearest task types. It tries them one after the
other, in an order drawn by hash, until enough samples came of them, or until it has tried as many as it may. What it
tried is what a run's stages hold and a release is made of: a function of the matches, the targets and the answers.

The order is the hash of the image alone. So a new image comes before a share of the others that is no larger than the
share of the images that are new, however much nearer it is; and an image's task types are tried close together, in one
request each time, which renders the image once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import ImageId, Match, TaskTypePath
from taskgalaxy_ops.settings import BranchTarget, TargetSettings
from taskgalaxy_ops.taxonomy.weaknesses import Weaknesses

Candidate = tuple[ImageId, TaskTypePath]

_KNOWN = 10  # questions of a task type with a fate, from which on its rate says something


class Standing(StrEnum):
    """How a task type stands."""

    REACHED = "at its target"
    SHORT = "on its way"
    GIVEN_UP = "given up: tries used up"
    FEW = "too few images"


@dataclass(frozen=True, slots=True)
class Try:
    """What came of a candidate so far: samples, and questions (one a question form) whose fate is open."""

    samples: int = 0
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """How far a task type got. ``tries``: the candidates that it takes, the first ones of its order."""

    target: BranchTarget
    candidates: int
    tries: int = 0
    samples: int = 0
    open: int = 0  # questions of these tries whose fate is open
    begun: int = 0  # of the open ones, those of images that the filter let pass
    closed: int = 0  # the others

    @property
    def standing(self) -> Standing:
        """At its target, on its way, or why it ends short of it."""
        if self.samples >= self.target.samples:
            return Standing.REACHED
        if self.open:
            return Standing.SHORT
        return Standing.GIVEN_UP if self.tries == self.target.tries else Standing.FEW

    @property
    def rate(self) -> float | None:
        """Samples a question, by Laplace's rule of succession; None: too little is known.

        Rejects come first and samples last, so what the filter let pass counts as a sample until its fate is known.
        """
        known = self.closed + self.begun
        return (self.samples + self.begun + 1) / (known + 2) if known >= _KNOWN else None

    @property
    def share(self) -> float:
        """Of its target, 0 to 1."""
        return min(1.0, self.samples / self.target.samples) if self.target.samples else 1.0


@dataclass(slots=True)
class Candidates:
    """The candidates of every task type, in the order in which they are tried."""

    images: dict[TaskTypePath, list[ImageId]] = field(default_factory=dict)
    _drawn: dict[ImageId, float] = field(default_factory=dict)

    @classmethod
    def of(cls, matches: Iterable[Match]) -> Candidates:
        """Those that the matches of all images give."""
        found = cls()
        for match in matches:
            found.images.setdefault(match.task_type, []).append(match.image)
            if match.image not in found._drawn:
                found._drawn[match.image] = draw("target", match.image)
        for images in found.images.values():
            images.sort(key=lambda image: (found._drawn[image], image))
        return found


@dataclass(frozen=True, slots=True)
class TargetRules:
    """The target of each task type.

    settings: they name branches by the paths that people are shown. shown: that of a task type by the path by which it
    is asked. weaknesses: a branch that a fine-tuned model is weak in has a higher target; None: no scores count.
    """

    settings: TargetSettings
    shown: Callable[[TaskTypePath], TaskTypePath] = str
    weaknesses: Weaknesses | None = None

    def of(self, task_type: TaskTypePath) -> BranchTarget:
        """The target of a task type, by the path by which it is asked."""
        path = self.shown(task_type)
        target = self.settings.of(path)
        weight = self.weaknesses.weight(path) if self.weaknesses else 1.0
        if weight <= 1:
            return target
        return BranchTarget(samples=math.ceil(target.samples * weight), tries=math.ceil(target.tries * weight))


@dataclass(slots=True)
class Walk:
    """How far each task type goes.

    forms: the number of questions that a candidate of a task type can give. tried: what came of candidates; those that
    are not in it were not asked about.
    """

    candidates: Candidates
    targets: TargetRules
    forms: Callable[[TaskTypePath], int]
    tried: dict[Candidate, Try] = field(default_factory=dict)

    def reachable(self) -> set[Candidate]:
        """The candidates that may ever be tried."""
        return {
            (image, path)
            for path, images in self.candidates.images.items()
            for image in images[: self.targets.of(path).tries]
        }

    def walked(self) -> dict[TaskTypePath, Walked]:
        """By task type, how far it certainly goes, however what is open ends; where nothing is open, it ends there."""
        return {path: self._certain(path, images) for path, images in self.candidates.images.items()}

    def taken(self, walked: Mapping[TaskTypePath, Walked]) -> set[Candidate]:
        """The candidates that the task types take."""
        return {(image, path) for path, each in walked.items() for image in self.candidates.images[path][: each.tries]}

    def _certain(self, path: TaskTypePath, images: Sequence[ImageId]) -> Walked:
        target = self.targets.of(path)
        tries = samples = open_ = begun = 0
        forms = self.forms(path)
        untried = Try(0, forms)
        for image in images[: target.tries]:
            if samples + open_ >= target.samples:
                break
            found = self.tried.get((image, path))
            begun += found.open if found else 0
            found = found or untried
            tries, samples, open_ = tries + 1, samples + found.samples, open_ + found.open
        closed = tries * forms - open_
        return Walked(
            target=target, candidates=len(images), tries=tries, samples=samples, open=open_, begun=begun, closed=closed
        )

    def wave(self, walked: Mapping[TaskTypePath, Walked], passed: Collection[Candidate]) -> set[Candidate]:
        """The candidates to ask about next: of the task types that are furthest from their targets; none: it is over.

        passed: candidates that this run has asked about already, as far as it could.
        """
        by_type = {path: chosen for path, each in walked.items() if (chosen := self._next(path, each, passed))}
        far = {path for path in by_type if walked[path].share < 0.5}
        return {(image, path) for path, chosen in by_type.items() if path in far or not far for image in chosen}

    def _next(self, path: TaskTypePath, each: Walked, passed: Collection[Candidate]) -> list[ImageId]:
        """Images to ask about: those that the task type certainly needs, and what its rate so far lets expect beside.

        What is expected stays a standard deviation below the target, so that few are asked about in vain.
        """
        end = each.tries
        if (rate := each.rate) is not None:
            end = self._until(path, each, rate, deviations=1)
        return [
            image
            for image in self.candidates.images[path][:end]
            if (image, path) not in passed and self.tried.get((image, path), Try(open=1)).open
        ]

    def _until(self, path: TaskTypePath, each: Walked, rate: float, deviations: int = 0) -> int:
        """How many candidates a task type takes if the questions that are not begun give samples at this rate, or so
        many standard deviations more."""
        tries, sure, unbegun = each.tries, each.samples + each.begun, each.open - each.begun
        for image in self.candidates.images[path][tries : each.target.tries]:
            luck = deviations * math.sqrt(unbegun * rate * (1 - rate))
            if sure + unbegun * rate + luck >= each.target.samples:
                break
            tries += 1
            if (found := self.tried.get((image, path))) is None:
                unbegun += self.forms(path)
            else:
                sure += found.samples + found.open
        return tries

    def ahead(self, walked: Mapping[TaskTypePath, Walked]) -> tuple[set[Candidate], set[Candidate]]:
        """Candidates beyond those that are taken: that will be at the rates so far, and that may be at the most.

        A task type of which little is known has the rate of all of them, 1 where nothing is known at all.
        """
        samples, begun, closed = (
            sum(getattr(each, name) for each in walked.values()) for name in ("samples", "begun", "closed")
        )
        overall = (samples + begun) / (closed + begun) if closed + begun else 1.0
        likely: set[Candidate] = set()
        most: set[Candidate] = set()
        for path, each in walked.items():
            if each.standing is not Standing.SHORT:
                continue
            rate = overall if each.rate is None else each.rate
            images = self.candidates.images[path]
            end = self._until(path, each, rate)
            likely.update((image, path) for image in images[each.tries : end])
            most.update((image, path) for image in images[each.tries : each.target.tries])
        return likely, most


def tries_of(
    rows: Mapping[str, Mapping[str, Iterable[Any]]], forms: Callable[[TaskTypePath], int]
) -> dict[Candidate, Try]:
    """What came of candidates, by the rows of the stages' tables that were made of their answers so far.

    rows: by stage and table; ``forms``: see `Walk`.
    """
    samples: Counter[Candidate] = Counter()
    left: Counter[Candidate] = Counter()
    for row in rows["filter"]["relevant"]:
        left[row.image, row.task_type] = forms(row.task_type)
    for name in ("write", "vote"):
        for table in ("samples", "rejects"):
            for row in rows.get(name, {}).get(table, ()):
                left[row.image, row.task_type] -= 1
                samples[row.image, row.task_type] += table == "samples"
    found = {each: Try(samples[each], open_) for each, open_ in left.items()}
    return found | {(row.image, row.task_type): Try() for row in rows["filter"]["rejects"]}


@dataclass(frozen=True, slots=True)
class TargetCounts:
    """How the task types stand that have candidates, and their samples."""

    types: Mapping[str, int]  # by Standing
    without_images: int = 0  # task types that no image has among its nearest
    unmet_branches: Sequence[str] = ()  # of the settings, those that no task type lies below


def counts(
    walked: Mapping[TaskTypePath, Walked], types: Collection[TaskTypePath], targets: TargetRules
) -> TargetCounts:
    """How ``types``, the task types of the taxonomy as they are asked, stand."""
    named = [targets.shown(path) for path in types]
    found = Counter(each.standing.value for each in walked.values())
    unmet = [
        branch
        for branch in targets.settings.branches
        if not any(path == branch or path.startswith(f"{branch}~") for path in named)
    ]
    standings = {standing.value: found[standing] for standing in Standing}
    return TargetCounts(standings, len(set(types) - walked.keys()), sorted(unmet))
