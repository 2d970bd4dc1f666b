"""Where a fine-tuned model fails: the weights of branches, by a definition of their own, and what goes by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import tiny_settings, tiny_workspace

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate import compare
from taskgalaxy_ops.evaluate import run as evaluate_run
from taskgalaxy_ops.evaluate.benchmarks import BENCHMARKS
from taskgalaxy_ops.evaluate.scores import Score
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.operations import weak_branches as module
from taskgalaxy_ops.operations.weak_branches import weak_branches
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.taxonomy import load_seeds, weaknesses
from taskgalaxy_ops.workspace import Workspace


def workspace(tmp_path: Path, **rules: Any) -> Workspace:
    return tiny_workspace(tiny_settings(tmp_path, taxonomy={"seeds": None, **rules}), MemoryStore())


def score(benchmark: str, family: str, value: float, questions: int | None = 40, **more: Any) -> Score:
    fields = {"model": "tiny, v1", "method": compare.AFTER, "metric": "accuracy", **more}
    return Score(benchmark=benchmark, family=family, value=value, questions=questions, **fields)


def keep(into: Workspace, *scores: Score, model: str = "tiny, v1") -> None:
    identity = fingerprint("scores", list(scores))
    into.store.put_if_absent(keys.scores(identity), evaluate_run.parquet(scores))
    Log(into.store, keys.FINETUNE_LOG).append({"kind": "scored", "identity": identity, "model": model})


def test_a_branch_weighs_what_it_fails_more_than_the_average(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    keep(
        store,
        score("held-out", "", 0.5, 120),
        score("held-out", "ocr", 0.9),
        score("held-out", "counting", 0.1),
        score("held-out", "colour", 0.5),
        score("held-out", "ocr", 0.0, method=compare.BEFORE),
        score("easy-vqa", "shape", 0.0),
        score("held-out", "no branch of ours", 0.0),
    )
    found = weak_branches(store)
    mean = 0.5  # of 120 questions
    wrong = {name: 1 - (right * 40 + mean * 20) / 60 for name, right in (("ocr", 0.9), ("counting", 0.1))}
    weights = {each.branch: each.weight for each in found.branches}
    assert weights == {
        "counting": round(wrong["counting"] / 0.5, 3),
        "colour": 1.0,
        "ocr": round(wrong["ocr"] / 0.5, 3),
    }
    assert [each.branch for each in found.branches] == ["counting", "colour", "ocr"], "the weakest first"
    assert found.branches[0].because == ("held-out: 0.10 of 40 questions",)
    assert found.weight("counting~apples") == weights["counting"]
    assert found.weight("geography") == 1.0, "no score is about it"


def test_a_benchmark_is_about_branches_and_the_settings_may_say_which(tmp_path: Path) -> None:
    chart, own = score("ChartQA", "", 20.0, 2500), {"weaknesses": {"benchmarks": {"ChartQA": ["ocr", "nothing"]}}}
    for rules, branch in (({}, "charts & tables"), (own, "ocr")):
        store = workspace(tmp_path, **rules)
        keep(store, chart, score("held-out", "counting", 1.0))
        found = weak_branches(store)
        assert [each.branch for each in found.branches] == [branch, "counting"]
        assert found.branches[0].because == ("ChartQA: 20 of 100",)
    assert all(1 / 3 <= each.weight <= 3 for each in found.branches)


def test_few_questions_say_little_and_a_weight_has_bounds(tmp_path: Path) -> None:
    store = workspace(tmp_path, weaknesses={"most": 1.5})
    keep(store, score("held-out", "ocr", 0.0, 1), score("held-out", "counting", 1.0, 500))
    few, many = weak_branches(store).branches
    assert (few.branch, many.branch) == ("ocr", "counting")
    assert (few.weight, many.weight) == (1.5, round(1 / 1.5, 3))
    store = workspace(tmp_path)
    keep(store, score("held-out", "ocr", 1.0), score("held-out", "counting", 1.0))
    assert {each.weight for each in weak_branches(store).branches} == {1.0}, "nothing is wrong"


def test_the_latest_scores_count_and_are_recorded_once(tmp_path: Path) -> None:
    store = workspace(tmp_path, weaknesses={})
    assert module.record(store) is None, "nothing was scored"
    keep(store, score("held-out", "ocr", 0.2), score("held-out", "counting", 0.8))
    keep(store, score("held-out", "ocr", 0.8), score("held-out", "counting", 0.2), model="other")
    assert weaknesses.recorded(store.store) is None
    found = module.record(store)
    assert found is not None and found.model == "other" and found.branches[0].branch == "counting"
    assert weaknesses.recorded(store.store) == found
    assert weaknesses.record(store.store, found) == 1, "it is there"
    assert module.record(workspace(tmp_path)) is None, "the settings do not ask for it"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    with pytest.raises(EvaluationError, match="no checkpoint was scored yet"):
        weak_branches(store)
    keep(store, score("easy-vqa", "", 0.2))
    with pytest.raises(EvaluationError, match="about no branch"):
        weak_branches(store)


def test_what_benchmarks_are_about_is_in_the_shipped_taxonomy() -> None:
    branches = {node.path for node in load_seeds() if node.level == 1}
    assert {branch for each in BENCHMARKS for branch in each.about} <= branches
