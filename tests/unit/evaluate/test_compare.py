"""Scores: questions, controls, intervals and verdicts, against hand-made answers."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from releases import COLOUR, released, workspace

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate import compare
from taskgalaxy_ops.evaluate import run as evaluate_run
from taskgalaxy_ops.evaluate.compare import AFTER, AFTER_SWAPPED, BEFORE, BEFORE_SWAPPED, BLIND, MAJORITY, Interval
from taskgalaxy_ops.evaluate.plots import loss_plot, score_plot
from taskgalaxy_ops.evaluate.questions import Asked, easy_questions, held_out, swapped
from taskgalaxy_ops.evaluate.study import arms, spread, t_interval
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.sources.builtin import easy_vqa


def asked(count: int, images: int, benchmark: str = "b") -> list[Asked]:
    answers = [("no", "yes")[n % 3 == 0] for n in range(count)]
    shown = [f"/{benchmark}/{n % images}.png" for n in range(count)]
    return [
        Asked(
            id=f"{benchmark}{n}",
            benchmark=benchmark,
            family="f",
            group="g",
            image=shown[n],
            question="Q?",
            answer=answers[n],
            candidates=("no", "yes"),
            guess="no",
        )
        for n in range(count)
    ]


def column(*hits: float) -> np.ndarray:
    return np.array(hits, float)


def test_held_out_questions_are_ranked_among_other_answers_of_their_task_type(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    released(store)
    copy = finetune_run.release_copy(store, None)
    found, unrankable = held_out(copy, 1000)
    assert unrankable == 0
    trained = {row["image"] for row in copy.rows("train")}
    assert {row["id"] for row in copy.rows("test")} == {each.id for each in found}
    for each in found:
        assert each.answer in each.candidates
        assert each.candidates == (("blue", "green", "red", "yellow") if each.group == COLOUR else ("dark", "light"))
        assert Path(each.image).is_file()
        assert not any(each.image.endswith(image) for image in trained)
    assert held_out(copy, 10)[0] == found[:10]


def test_what_has_one_answer_only_is_counted_and_left_out(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    released(store, images=3)  # too few for a second tone
    _, unrankable = held_out(finetune_run.release_copy(store, None), 1000, splits=("train", "test"))
    assert unrankable == 3


def test_easy_questions_are_on_images_that_no_source_claims() -> None:
    first = easy_questions(300, frozenset())
    assert len({each.id for each in first}) == 300
    assert Counter(each.family for each in first) == dict.fromkeys(easy_vqa.KINDS, 100)
    claimed = frozenset(q.image for q in easy_vqa.questions("test", 90, frozenset()))
    others = easy_vqa.questions("test", 300, claimed)
    assert not claimed & {each.image for each in others}
    assert not {q.image for q in easy_vqa.questions("train", 300, frozenset())} & {q.image for q in others}


@given(st.integers(2, 12), st.integers(2, 40))
def test_no_image_stays_when_images_are_swapped(images: int, count: int) -> None:
    rows = asked(max(count, images), images) + asked(6, 3, "other")
    found = swapped(rows)
    assert all(image != each.image for image, each in zip(found, rows, strict=True))
    assert all(image.split("/")[1] == each.benchmark for image, each in zip(found, rows, strict=True))
    assert len(set(found)) == len({each.image for each in rows})  # a permutation
    assert swapped(rows) == found


def test_the_guess_is_the_most_frequent_answer_of_training(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    released(store)
    copy = finetune_run.release_copy(store, None)
    trained = Counter(
        row["answer"] for row in copy.table(["train"], ["task_type", "answer"]) if row["task_type"] == COLOUR
    )
    (guess,) = {each.guess for each in held_out(copy, 1000)[0] if each.group == COLOUR}
    assert trained[guess] == max(trained.values())
    assert {each.family: each.guess for each in easy_questions(30, frozenset())}["yes/no"] in {"yes", "no"}


def test_intervals_are_over_images() -> None:
    values, images = column(*[1, 1, 1, 1, 0, 0, 0, 0] * 5), [f"{n // 4}" for n in range(40)]
    alone = compare.interval(values, [str(n) for n in range(40)])
    together = compare.interval(values, images)
    assert alone.value == together.value == 0.5
    assert together.high - together.low > alone.high - alone.low
    assert compare.interval(values, images) == together


BETTER = {BLIND: (0.1, 0.05, 0.2), MAJORITY: (0.2, 0.1, 0.3)}


@pytest.mark.parametrize(
    ("gain", "seeing", "swapped_gain", "over_blind", "said"),
    [
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), BETTER, "a gain in seeing"),
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), {}, "a gain in seeing"),
        ((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), {BLIND: (0.03, -0.02, 0.08)}, "without images: none in"),
        (
            *((0.2, 0.1, 0.3), (0.2, 0.1, 0.3), (0.0, -0.1, 0.1)),
            *({**BETTER, MAJORITY: (0.0, -0.1, 0.1)}, "better than the majority answer: none in seeing"),
        ),
        ((0.2, 0.1, 0.3), (0.05, -0.1, 0.2), (0.15, 0.1, 0.2), BETTER, "swapped: no gain in seeing"),
        ((0.2, 0.1, 0.3), (0.15, -0.1, 0.4), (0.05, -0.1, 0.2), BETTER, "not shown to be one in seeing"),
        ((0.2, -0.1, 0.5), (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), BETTER, "no gain is shown"),
        ((-0.2, -0.3, -0.1), (0.0, -0.1, 0.1), (0.0, -0.1, 0.1), BETTER, "a loss"),
    ],
)
def test_a_verdict_follows_from_the_intervals(
    gain: tuple, seeing: tuple, swapped_gain: tuple, over_blind: dict[str, tuple], said: str
) -> None:
    controls = {name: Interval(*each) for name, each in over_blind.items()}
    assert said in compare.verdict(Interval(*gain), Interval(*seeing), Interval(*swapped_gain), controls)


def test_a_gain_that_stays_with_images_swapped_is_no_gain_in_seeing() -> None:
    rows = asked(60, 60)
    worse, better = column(*[1, 0, 0] * 20), column(*[1, 1, 0] * 20)
    guessing = {BEFORE: worse, BEFORE_SWAPPED: worse, AFTER: better, AFTER_SWAPPED: better, BLIND: better}
    whole, _ = compare.compare(rows, guessing)
    assert whole.verdict == "a gain that stays when the images are swapped: no gain in seeing"
    whole, _ = compare.compare(rows, {**guessing, AFTER_SWAPPED: worse})
    assert "not shown to be better than the model without images" in whole.verdict
    whole, _ = compare.compare(rows, {**guessing, AFTER_SWAPPED: worse, BLIND: worse, AFTER: column(*[1] * 60)})
    assert whole.verdict == "a gain in seeing"
    assert whole.scores[MAJORITY].value == pytest.approx(2 / 3)
    assert set(whole.scores) == set(compare.METHODS)


def test_few_images_give_no_verdict() -> None:
    rows = asked(30, 5)
    same = column(*[1, 0, 0] * 10)
    found, _ = compare.compare(rows, {BEFORE: same, BEFORE_SWAPPED: same, AFTER: same, AFTER_SWAPPED: same})
    assert found.verdict == "too few images for a verdict (5)"
    assert BLIND not in found.scores


def test_scores_are_kept_and_read_again() -> None:
    rows = asked(60, 60)
    same = column(*[1, 0, 0] * 20)
    comparisons = compare.compare(rows, {BEFORE: same, BEFORE_SWAPPED: same, AFTER: same, AFTER_SWAPPED: same})
    found = evaluate_run.Scored("id", comparisons, compare.as_scores(comparisons, "tiny"), 3, "page")
    assert evaluate_run.Scored.of_json(found.as_json()) == found
    assert evaluate_run.parquet(found.scores) == evaluate_run.parquet(found.scores)


def test_pictures_are_equal_when_made_again_and_hold_no_date() -> None:
    rows = asked(60, 60)
    same = column(*[1, 0, 0] * 20)
    comparisons = compare.compare(rows, {BEFORE: same, BEFORE_SWAPPED: same, AFTER: same, AFTER_SWAPPED: same})
    assert score_plot(comparisons) == score_plot(comparisons)
    curve = loss_plot({"after": [(1, 7.0), (10, 2.0)], "blind": []})
    assert curve == loss_plot({"after": [(1, 7.0), (10, 2.0)], "blind": []})
    assert b"<dc:date>" not in curve


def test_a_public_benchmark_without_lmms_eval_says_what_to_set(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    released(store, images=8)
    copy = finetune_run.release_copy(store, None)
    with pytest.raises(EvaluationError, match=r"POPE: run by lmms-eval, and finetune\.lmms"):
        evaluate_run.score_checkpoints(store, copy, {"before": "a", "after": "b"}, ["POPE"], model="m")


# --- the study


def rows_of(types: int, each: int) -> list[dict[str, str]]:
    return [
        {
            "id": f"{t}-{n}-{variant}",
            "image_id": f"i{n}",
            "task_type": f"t{t}",
            "variant": variant,
            "answer": str(n % 4),
        }
        for t in range(types)
        for n in range(each)
        for variant in ("plain", "chain_of_thought")[: 1 + (n % 2)]
    ]


def questions_of(types: int) -> list[Asked]:
    numbers = ("0", "1", "2", "3")
    return [
        Asked(
            id=f"{t}/{n}",
            benchmark="held-out",
            family="f",
            group=f"t{t}",
            image=f"/{n}",
            question="Q?",
            answer=numbers[n % 4],
            candidates=numbers,
            guess="0",
        )
        for t in range(types)
        for n in range(8)
    ]


def test_the_arms_are_nested_and_hold_nothing_that_is_held_out() -> None:
    rows, questions = rows_of(24, 20), questions_of(24)
    for seed in range(3):
        found = arms(rows, questions, "types", seed)
        assert [arm.name for arm in found] == ["1/8", "1/4", "1/2", "all"]
        assert [arm.task_types for arm in found] == [2, 4, 8, 16]
        for smaller, larger in pairwise(found):
            assert smaller.samples < larger.samples
        types = {row["id"]: row["task_type"] for row in rows}
        assert not found[-1].held_out & {types[sample] for sample in found[-1].samples}
        assert {len(spread(rows, arm, 30)) for arm in found} == {30}
        taken = [types[sample] for sample in spread(rows, found[-1], 30)]
        assert max(map(taken.count, taken)) == 2  # spread over the task types: 30 of 16
    assert len({arms(rows, questions, "types", seed)[0].held_out for seed in range(3)}) > 1


def test_the_second_table_caps_at_five_a_task_type() -> None:
    rows = rows_of(6, 20)
    every, five, thought = arms(rows, questions_of(6), "variants", 0)
    assert (len(every.samples), len(five.samples)) == (120, 30)
    assert thought.name == "max-5, chain of thought"
    images = {row["id"]: (row["task_type"], row["image_id"]) for row in rows}
    assert {images[each] for each in thought.samples} <= {images[each] for each in five.samples}  # the same five


def test_an_interval_over_seeds_is_students() -> None:
    found = t_interval([0.1, 0.2, 0.3])
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
