"""Where a fine-tuned model fails, as weights of the taxonomy's branches: what to grow next, and ask more of.

A branch's score is the share of right answers of the fine-tuned model to the release's held-out questions below it, and
its share of the maximum on those of the sixteen benchmarks that are about it (``Benchmark.about``, or the settings).
Few questions say little: each score is drawn towards the mean of all by ``_PRIOR`` questions. The weight is the share
of wrong answers, divided by the mean of that share over the branches, within bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate import compare
from taskgalaxy_ops.evaluate import run as evaluate_run
from taskgalaxy_ops.evaluate.benchmarks import BENCHMARKS
from taskgalaxy_ops.evaluate.questions import HELD_OUT
from taskgalaxy_ops.evaluate.scores import Score
from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.settings import WeaknessSettings
from taskgalaxy_ops.taxonomy import weaknesses
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import LIVE
from taskgalaxy_ops.taxonomy.weaknesses import WeakBranch, Weaknesses
from taskgalaxy_ops.workspace import Workspace

_PRIOR = 20  # questions: as many count for the mean of all branches as for a branch
_OF_A_BENCHMARK = 100  # questions that a benchmark counts for, where its score does not say how many they were


@dataclass(frozen=True, slots=True)
class _Evidence:
    branch: TaskTypePath
    right: float  # 0..1
    questions: int
    said: str


def weak_branches(workspace: Workspace) -> Weaknesses:
    """What the latest scores in the store say of the newest version's branches.

    Raises EvaluationError where no checkpoint was scored, or no score is about a branch of the taxonomy.
    """
    chosen = workspace.settings.taxonomy.weaknesses or WeaknessSettings()
    latest = evaluate_run.latest(workspace)
    if latest is None:
        raise EvaluationError(
            "no checkpoint was scored yet, so nothing is known of what a model fails at.\n"
            "  `taskgalaxy finetune` trains and scores one; `taskgalaxy evaluate` scores a checkpoint of yours."
        )
    model, identity, scores = latest
    nodes = TaxonomyStore(workspace).version().nodes
    branches = {node.path for node in nodes if node.level == 1 and node.status == LIVE}
    found = [each for each in _evidence(scores, chosen.benchmarks) if each.branch in branches]
    if not found:
        raise EvaluationError(
            f"the scores of {model} are about no branch of the taxonomy.\n"
            f"  Score `{HELD_OUT}`, or say in taxonomy.weaknesses.benchmarks what a benchmark is about."
        )
    return Weaknesses(model, identity, weigh(found, chosen.most))


def record(workspace: Workspace) -> Weaknesses | None:
    """Record what the latest scores say, where the settings ask for it; None: they do not, or nothing can be said."""
    if workspace.settings.taxonomy.weaknesses is None:
        return None
    try:
        found = weak_branches(workspace)
    except EvaluationError:
        return None
    weaknesses.record(workspace.store, found)
    return found


def weigh(found: Sequence[_Evidence], most: float) -> tuple[WeakBranch, ...]:
    """The branches with their weights, the weakest first. most: the largest weight; the smallest is one part of it."""
    mean = sum(each.right * each.questions for each in found) / sum(each.questions for each in found)
    by_branch: dict[TaskTypePath, list[_Evidence]] = {}
    for each in found:
        by_branch.setdefault(each.branch, []).append(each)
    wrong = {}
    for branch, those in by_branch.items():
        right = sum(each.right * each.questions for each in those) + mean * _PRIOR
        wrong[branch] = 1 - right / (sum(each.questions for each in those) + _PRIOR)
    average = sum(wrong.values()) / len(wrong)
    weighed = (
        WeakBranch(
            branch,
            round(min(most, max(1 / most, share / average)), 3) if average > 0 else 1.0,
            tuple(each.said for each in by_branch[branch]),
        )
        for branch, share in wrong.items()
    )
    return tuple(sorted(weighed, key=lambda each: (-each.weight, each.branch)))


def _evidence(scores: Iterable[Score], about: Mapping[str, Sequence[TaskTypePath]]) -> list[_Evidence]:
    """What the fine-tuned model's scores are about. about: the settings' branches of a benchmark, by its name."""
    benchmarks = {each.name: each for each in BENCHMARKS}
    found = []
    for score in scores:
        if score.method != compare.AFTER:
            continue
        if score.benchmark == HELD_OUT and score.family and score.questions:
            told = f"{HELD_OUT}: {score.value:.2f} of {score.questions:,} questions"
            found.append(_Evidence(score.family, score.value, score.questions, told))
        elif (benchmark := benchmarks.get(score.benchmark)) is not None and not score.family:
            right = score.value / benchmark.maximum if benchmark.maximum < float("inf") else score.value / 100
            told = f"{benchmark.name}: {score.value:g} of {benchmark.maximum:g}"
            count = min(score.questions or _OF_A_BENCHMARK, _OF_A_BENCHMARK)
            found += [
                _Evidence(branch, min(1.0, right), count, told) for branch in about.get(benchmark.name, benchmark.about)
            ]
    return found
