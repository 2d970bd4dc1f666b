"""What the judges' votes say of the judges and of the pairs, without anybody who knows which pairs are right.

Latent classes after Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm",
1979, for binary votes and with priors: a pair is right with a share, and a judge approves right pairs (sensitivity)
and rejects wrong ones (specificity) at rates of its own.

Dawid and Skene take judges to err independently, and models do not: they find the same pairs hard, and may be the same
model under two names. The votes of three judges cannot tell whether they err together, so that an interval which
takes them to be independent is too narrow. Therefore several models of dependence are fitted and averaged by how well
they explain the votes: none; all judges together; each two judges together. Where judges vote together (a share
of the pairs), they give one vote, which is right as often as theirs are on average.

A likelihood of the votes that were cast is valid although judges are asked only while a verdict is open: what is
asked depends on earlier votes alone, which the likelihood has. An abstention counts as a vote that was not cast.

No such model is quite true, and of a hundred thousand pairs one of them, hardly better than the others, would seem
certain, with intervals next to nothing wide. So votes count as those of ``WORTH`` pairs at most, in a coarsened
posterior (Miller and Dunson, "Robust Bayesian Inference via Coarsening", 2019). Gold counts in full.

Intervals are quantiles of the posterior, by importance sampling around each fit's mode. A bootstrap would repeat what
the votes cannot tell, and a profile of the likelihood is flat there; the posterior is as wide as that makes it.
The random numbers are of a fixed seed: the same votes give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.release.agreement import Ballot, Interval

Floats = NDArray[np.float64]

WORTH = 5_000  # pairs, which the votes on more and more pairs come to count as
DRAWS = 2_000  # of the posterior, by which intervals are quantiles
COPYING = 0.5  # share of pairs voted on together, from which one of two judges may be left out
# Shares of pairs voted on together, and how likely each is before the votes: in the main the less the more.
_TOGETHER = {0.1: 0.3, 0.25: 0.3, 0.5: 0.2, 0.75: 0.1, 0.98: 0.1}
_RATE = (6.0, 1.0)  # Beta prior of sensitivity and specificity: most judges are right six times of seven
_EVEN = (1.0, 1.0)  # Beta prior of the share of right pairs
_TRIED, _KEPT = 400, 800  # draws around a mode: to fit the proposal, and by which a model is weighed
_DEGREES = 5  # of freedom of the proposals, whose tails are to be heavier than the posterior's
_STEPS = 50  # to a mode at most
_STILL = 1e-3  # slope of the log posterior by a logit, at which a mode is reached
_FAR = 25.0  # logits, at which a rate is 0 or 1 for all purposes
_STRIDE = 1e-3  # of the differences that give the curvature at a mode, in logits


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAccuracy:
    """How often a judge is right: over all pairs, the right ones, the wrong ones, and as a mean of the last two."""

    judge: str
    accuracy: Interval
    sensitivity: Interval
    specificity: Interval
    balanced: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """Whether two judges vote together beyond what being right explains."""

    judges: tuple[str, str]
    probability: float  # that they do, these two or all judges
    copying: float  # the probability that these two do for at least ``COPYING`` of the pairs
    share: float  # of the pairs that they vote on together, expected


@dataclass(frozen=True, slots=True)
class _Structure:
    """A model of dependence: which judges vote together (by place), and for what share of the pairs."""

    group: tuple[int, ...] = ()
    share: float = 0.0


class JudgeModel:
    """The posterior of the judges' rates and of the pairs, given ballots. Memory grows with different ballots alone.

    ballots: the number of pairs with each ballot. gold: of further pairs, by ballot, how many are wrong and right.
    planted: of errors that were planted, by ballot, how many there are; they say nothing of the share of right pairs.
    """

    def __init__(
        self,
        judges: Sequence[str],
        ballots: Mapping[Ballot, int],
        gold: Mapping[Ballot, tuple[int, int]] | None = None,
        planted: Mapping[Ballot, int] | None = None,
    ) -> None:
        self.judges = tuple(judges)
        self._votes = _Votes(self.judges, ballots, gold or {}, planted or {})
        at = _logits(np.array([0.7, *[0.85] * (2 * len(self.judges))]))
        fits: list[_Fit] = []
        for structure in _structures(len(self.judges)):
            fits.append(_Fit(self._votes, structure, at))
            at = fits[-1].mode
        self._structures = [fit.structure for fit in fits]
        prior = np.log([_prior(fit.structure, len(self.judges)) for fit in fits])
        evidence = prior + [fit.evidence for fit in fits]
        shares = np.exp(evidence - evidence.max())
        # Systematic resampling: equally weighted draws, with no more chance than is needed.
        weights = np.concatenate([share * fit.weights for share, fit in zip(shares, fits, strict=True)])
        points = (np.arange(DRAWS) + 0.5) / DRAWS * weights.sum()
        taken = np.searchsorted(np.cumsum(weights), points).clip(max=len(weights) - 1)
        self._of = taken // _KEPT  # the fit of each draw
        self._rates = np.concatenate([fit.rates for fit in fits])[taken]
        self._fits = [(fit, self._of == number) for number, fit in enumerate(fits)]

    def accuracies(self) -> list[JudgeAccuracy]:
        """Each judge's, in the order of ``judges``."""
        n = len(self.judges)
        sensitivity, specificity = self._rates[:, 1 : n + 1].copy(), self._rates[:, n + 1 : 2 * n + 1].copy()
        for fit, mine in self._fits:
            group, share = list(fit.structure.group), fit.structure.share
            if group and mine.any():
                for own in (sensitivity, specificity):
                    alone = own[np.ix_(mine, group)]
                    own[np.ix_(mine, group)] = (1 - share) * alone + share * alone.mean(axis=1, keepdims=True)
        right = self._rates[:, :1]
        accuracy = right * sensitivity + (1 - right) * specificity
        columns = (accuracy, sensitivity, specificity, (sensitivity + specificity) / 2)
        return [
            JudgeAccuracy(
                judge=judge,
                accuracy=Interval.of(columns[0][:, at]),
                sensitivity=Interval.of(columns[1][:, at]),
                specificity=Interval.of(columns[2][:, at]),
                balanced=Interval.of(columns[3][:, at]),
            )
            for at, judge in enumerate(self.judges)
        ]

    def dependences(self) -> list[Dependence]:
        """Of each two judges, in the order of ``judges``."""
        share = np.array([each.share for each in self._structures])
        found = []
        for two in combinations(range(len(self.judges)), 2):
            together = np.array([set(two) <= set(each.group) for each in self._structures])
            alone = np.array([two == each.group and each.share >= COPYING for each in self._structures])
            found.append(
                Dependence(
                    judges=(self.judges[two[0]], self.judges[two[1]]),
                    probability=round(float(together[self._of].mean()), 3),
                    copying=round(float(alone[self._of].mean()), 3),
                    share=round(float((together * share)[self._of].mean()), 3),
                )
            )
        return found

    def probabilities(self, ballots: Sequence[Ballot]) -> list[float]:
        """The probability that a pair with each ballot is right, by the votes alone, rounded to three digits."""
        return [round(float(each), 3) for each in self._right(ballots).mean(axis=0)]

    def share_right(self, ballots: Mapping[Ballot, int]) -> Interval | None:
        """The share of right ones among the pairs with these ballots; None: there are none."""
        if not (total := sum(ballots.values())):
            return None
        return Interval.of(self._right(list(ballots)) @ np.array(list(ballots.values()), float) / total)

    def _right(self, ballots: Sequence[Ballot]) -> Floats:
        """(draws, ballots): the probability of being right by each draw's rates."""
        votes = _Votes(self.judges, dict.fromkeys(ballots, 1), {}, {})
        found = np.empty((len(self._rates), len(ballots)))
        for fit, mine in self._fits:
            if mine.any():
                each = votes.by_class(self._rates[mine], fit.structure)
                found[mine] = each[:, 0] / (each.sum(axis=1) + 1e-300)
        return found


class _Votes:
    """Ballots as arrays, one row a different ballot.

    ``approved`` and ``rejected``: (p, j), who voted so. ``open``, ``wrong``, ``right``, ``planted``: (p,), the pairs
    that have the ballot: those of which nothing else is known, those of gold, and planted errors.
    """

    def __init__(
        self,
        judges: tuple[str, ...],
        ballots: Mapping[Ballot, int],
        gold: Mapping[Ballot, tuple[int, int]],
        planted: Mapping[Ballot, int],
    ) -> None:
        rows = [*ballots, *gold, *planted]
        place = {judge: number for number, judge in enumerate(judges)}
        votes = np.full((len(rows), len(judges)), -1, np.int8)
        for row, ballot in enumerate(rows):
            for judge, vote in ballot:
                if vote is not None:
                    votes[row, place[judge]] = vote
        self.approved, self.rejected = (votes == 1).astype(float), (votes == 0).astype(float)
        known = np.array(list(gold.values()), float).reshape(-1, 2)
        pairs = np.array(list(ballots.values()), float)

        def of(part: Floats, after: int) -> Floats:
            return np.concatenate([np.zeros(after), part, np.zeros(len(rows) - after - len(part))])

        self.open = of(pairs * WORTH / (WORTH + pairs.sum()), 0)
        self.wrong, self.right = (of(known[:, each], len(ballots)) for each in (0, 1))
        self.planted = of(np.array(list(planted.values()), float), len(ballots) + len(gold))

    def by_class(self, rates: Floats, structure: _Structure) -> Floats:
        """The likelihood of each ballot if the pair is right, and if it is wrong, times the share of such pairs.

        rates: (s, 2j + 1): share of right pairs, sensitivities, specificities. Returns (s, 2, p); index 0: right.
        """
        n = self.approved.shape[1]
        group = list(structure.group)
        outside = np.delete(np.arange(n), group)
        share = np.stack([rates[:, 0], 1 - rates[:, 0]], axis=1)[:, :, None]
        parts = []
        for approving in (rates[:, 1 : n + 1], 1 - rates[:, n + 1 :]):
            yes, no = np.log(approving), np.log1p(-approving)
            others = yes[:, outside] @ self.approved[:, outside].T + no[:, outside] @ self.rejected[:, outside].T
            likelihood = np.exp(others)
            if group:
                alone = np.exp(yes[:, group] @ self.approved[:, group].T + no[:, group] @ self.rejected[:, group].T)
                approved = approving[:, group].mean(axis=1)[:, None]
                up, down = self.approved[:, group].any(axis=1), self.rejected[:, group].any(axis=1)
                vote = np.where(up, approved, np.where(down, 1 - approved, 1.0))
                vote[:, up & down] = 0.0  # one vote cannot be both
                likelihood = likelihood * ((1 - structure.share) * alone + structure.share * vote)
            parts.append(likelihood)
        found: Floats = share * np.stack(parts, axis=1)
        return found

    def log_likelihood(self, rates: Floats, structure: _Structure) -> Floats:
        """(s,): of all ballots, by each of the rates."""
        each = self.by_class(rates, structure)
        both = np.log(each + 1e-300)
        whole = np.log(each.sum(axis=1) + 1e-300)
        # That a planted error is wrong is no news: how it is voted on is, if it is wrong.
        found: Floats = whole @ self.open + both[:, 0] @ self.right + both[:, 1] @ (self.wrong + self.planted)
        found -= np.log1p(-rates[:, 0]) * self.planted.sum()
        return found


class _Fit:
    """One model of dependence, fitted: draws of its rates with weights that add up to 1, and its evidence (log)."""

    def __init__(self, votes: _Votes, structure: _Structure, start: Floats) -> None:
        self.structure = structure
        self._votes = votes
        self._above, self._below = np.array([_EVEN] + [_RATE] * (len(start) - 1)).T
        self.mode, curvature = self._climb(start)
        mode, spread = self.mode, _inverse(curvature)
        random = np.random.default_rng(0)
        drawn, weights, _ = self._weighed(mode, spread, _TRIED, random)
        if 1 / (weights**2).sum() > 4 * len(mode):  # enough draws count to say where the posterior lies
            mode = weights @ drawn
            spread = (drawn - mode).T @ ((drawn - mode) * weights[:, None])
        drawn, self.weights, self.evidence = self._weighed(mode, spread, _KEPT, random)
        self.rates = _rates(drawn)

    def _climb(self, at: Floats) -> tuple[Floats, Floats]:
        """The mode of the posterior over logits, and the curvature there: Newton's steps, shortened where they fall."""
        value = self._log_posterior(at[None])[0]
        damping = 1.0
        for _ in range(_STEPS):
            slope, curvature = self._derivatives(at)
            if np.abs(slope).max() < _STILL:
                break
            steps = [_inverse(curvature, damping * 10.0**power) @ slope for power in range(-2, 4)]
            tried = at + np.stack(steps)
            values = self._log_posterior(tried)
            best = int(values.argmax())
            if values[best] <= value:
                break
            at, value, damping = tried[best], values[best], damping * 10.0 ** (best - 2)
        return at, self._derivatives(at)[1]

    def _derivatives(self, at: Floats) -> tuple[Floats, Floats]:
        """The slope of the log posterior, and minus its second derivatives, by differences."""
        n = len(at)
        step = np.eye(n) * _STRIDE
        corners = np.stack([at + a * step[:, None] + b * step[None] for a in (1, -1) for b in (1, -1)])
        values = self._log_posterior(corners.reshape(-1, n)).reshape(4, n, n)
        slope: Floats = (np.diag(values[0]) - np.diag(values[3])) / (4 * _STRIDE)
        curvature: Floats = -(values[0] - values[1] - values[2] + values[3]) / (4 * _STRIDE**2)
        return slope, curvature

    def _log_posterior(self, logits: Floats) -> Floats:
        """(s,): up to what the votes and rates do not change. Of logits, so that a Beta density gains p (1 - p)."""
        rates = _rates(logits)
        prior = np.log(rates) @ self._above + np.log1p(-rates) @ self._below
        found: Floats = prior + self._votes.log_likelihood(rates, self.structure)
        return found

    def _weighed(
        self, centre: Floats, spread: Floats, number: int, random: np.random.Generator
    ) -> tuple[Floats, Floats, float]:
        """Draws by Student's t around a centre, their weights (adding up to 1), and the log of the evidence."""
        n = len(centre)
        root = np.linalg.cholesky(1.2 * spread + 1e-9 * np.eye(n))
        normal = random.standard_normal((number, n))
        scale = random.chisquare(_DEGREES, number) / _DEGREES
        drawn = centre + (normal / np.sqrt(scale)[:, None]) @ root.T
        distance = (normal**2).sum(axis=1) / scale
        # The proposal's density but for a constant that all models share, since all have as many rates.
        proposal = -(_DEGREES + n) / 2 * np.log1p(distance / _DEGREES) - np.log(np.diag(root)).sum()
        log_weights = self._log_posterior(drawn) - proposal
        most = log_weights.max()
        weights = np.exp(log_weights - most)
        return drawn, weights / weights.sum(), float(most + np.log(weights.mean()))


def _structures(judges: int) -> Iterator[_Structure]:
    yield _Structure()
    groups = list(combinations(range(judges), 2))
    if judges > 2:
        groups.append(tuple(range(judges)))  # type: ignore[arg-type]
    for group in groups:
        for share in _TOGETHER:
            yield _Structure(group, share)


def _prior(structure: _Structure, judges: int) -> float:
    """Independence, all together, and two together are equally likely, whatever the number of judges."""
    if not structure.group:
        return 1.0
    twos = judges * (judges - 1) // 2
    return _TOGETHER[structure.share] / (twos if len(structure.group) == 2 and judges > 2 else 1)


def _rates(logits: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-logits.clip(-_FAR, _FAR)))
    return found


def _logits(rates: Floats) -> Floats:
    found: Floats = np.log(rates) - np.log1p(-rates)
    return found


def _inverse(curvature: Floats, damping: float = 0.0) -> Floats:
    """The spread of a normal with this curvature; where that is flat or no peak, as wide as a prior is."""
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    found: Floats = (vectors / (np.abs(values).clip(min=0.1) + damping)) @ vectors.T
    return found
