"""Planted errors: what makes an answer wrong, who is asked about it and when, and that no error is ever a sample."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyModels, tiny_images, tiny_models, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.forms.grounded import box_of, iou
from taskgalaxy_ops.generation.planted import planted
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import vote
from taskgalaxy_ops.operations.judges import judge_report
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Answer, Pair, Reason
from taskgalaxy_ops.release.publish import publish
from taskgalaxy_ops.reports.text.judges import judges as text
from taskgalaxy_ops.text import normal_answer

__all__ = ["tiny_models"]

CHOICES = "What is it?\nA. a cat\nB. a dog\nC. a hen\nAnswer with the letter of the one right option."


def pair(number, answer, question="What is it?", variant="plain", image=None, **more):
    return Pair(f"{number:064x}", image or f"i{number}", "a~b", variant, question, answer, **more)


def wrong_of(*pairs):
    """The planted error of the first; None: there is none."""
    return next((error.wrong for error in planted(pairs, 1.0) if error.of is pairs[0]), None)


@pytest.mark.parametrize("number", range(5))
def test_what_can_be_turned_is_turned(number):
    assert wrong_of(pair(number, "B", CHOICES, "multiple_choice")).answer in {"A", "C"}
    assert wrong_of(pair(number, "Yes")).answer == "No"
    assert wrong_of(pair(number, "Nein", variant="yes_no-de")).answer == "Ja"
    box = "[100, 100, 300, 200]"
    assert iou(box_of(wrong_of(pair(number, box, variant="grounded")).answer), box_of(box)) <= 0.3
    assert wrong_of(pair(number, "[10, 10, 990, 900]", variant="grounded")) is None
    for answer in ("3", "1,250 EUR", "0.5", "About 40 people in 2021."):
        assert normal_answer(wrong_of(pair(number, answer)).answer) != normal_answer(answer)
    assert 45 <= int(wrong_of(pair(number, "90 %")).answer.split()[0]) <= 72, "no more than a whole"


def test_else_another_images_answer_is_taken_that_cannot_be_right_as_well():
    red = pair(1, "Dark red.")
    assert wrong_of(red, pair(2, "Blue."), pair(3, "red")).answer == "Blue."
    assert wrong_of(red, pair(2, "Blue.", image="i1"), pair(3, "The dark red")) is None
    assert wrong_of(red, replace(pair(2, "Blue."), task_type="a~c"), pair(3, "Blau.", variant="plain-de")) is None
    assert wrong_of(red, pair(2, "An answer cannot be given: the image does not show it.")) is None
    asked_alike = pair(9, "Green.", question="what is it")
    others = [pair(number, "Blue.", question="And this?") for number in range(2, 9)]
    assert wrong_of(red, *others, asked_alike).answer == "Green.", "what asks the same comes first"


def test_what_the_teacher_answers_elsewhere_to_the_question_is_not_planted():
    assert wrong_of(pair(1, "Yes"), replace(pair(2, "No", image="i1"), number=2)) is None


def test_reasoning_goes_with_its_answer_and_what_has_no_answer_is_left():
    thought = pair(1, "3", variant="chain_of_thought", reasoning="There are three.")
    other = pair(2, "5", variant="chain_of_thought", reasoning="There are five.")
    assert wrong_of(thought) is None
    wrong = wrong_of(thought, other)
    assert (wrong.answer, wrong.reasoning, wrong.image) == ("5", "There are five.", "i1")
    assert wrong_of(pair(1, "The image does not show a price.", variant="unanswerable"), other) is None


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=3), st.sampled_from(["plain", "yes_no-fr"]))
def test_a_planted_answer_never_says_what_the_pairs_says(answer, others, variant):
    pairs = [pair(number, said, variant=variant) for number, said in enumerate([answer, *others])]
    for of, wrong in planted(pairs, 1.0):
        assert normal_answer(wrong.answer) != normal_answer(of.answer)
        assert wrong.pair != of.pair and (wrong.image, wrong.question) == (of.image, of.question)


def test_a_share_draws_by_the_pair_and_more_of_it_keeps_what_was_drawn():
    pairs = [pair(number, "3") for number in range(300)]
    few, many = ({error.of.pair for error in planted(pairs, share)} for share in (0.05, 0.2))
    assert few < many and 40 <= len(many) <= 80
    assert planted(pairs[::-1], 0.2)[::-1] == planted(pairs, 0.2)


def stage(**chosen):
    settings = tiny_settings("x", vote={"planted": 1.0, "audit_share": 0.0, **chosen})
    templates = vote.templates(load_prompts({}, (), settings.further_prompts), settings)
    return templates, vote.work(templates, [PAIR], settings)


PAIR = pair(1, "Yes")
WRONG = wrong_of(PAIR)


def said(templates, of, *votes):
    units = [vote.vote_unit(judge, of).key for judge in vote.judges_of(templates)]
    return {key: Answer({"vote": each, "reason": ""}) for key, each in zip(units, votes, strict=False)}


def asked(work, answers):
    return [(template.model.name, unit.item["answer"]) for template, units in work.needed(answers) for unit in units]


def test_every_judge_sees_the_error_once_the_pair_is_accepted_and_not_before():
    templates, work = stage()
    assert asked(work, {}) == [("a", "Yes"), ("b", "Yes")]
    assert work.most({}) == 6, "all judges, on both"
    accepted = said(templates, PAIR, 1, 1)
    assert asked(work, accepted) == [("a", "No"), ("b", "No"), ("c", "No")]
    made = work.output(accepted)
    assert (made.units_in, made.units_out, made.pending) == (2, 1, 1)
    rejected = said(templates, PAIR, 0, 0)
    assert asked(work, rejected) == [] and work.output(rejected).units_in == 1


@pytest.mark.parametrize(("votes", "was"), [((0, 0, 0), "rejected"), ((1, 1, 0), "accepted")])
def test_an_error_is_a_reject_whatever_judges_say_and_has_no_verdict(votes, was):
    templates, work = stage()
    made = work.output({**said(templates, PAIR, 1, 1), **said(templates, WRONG, *votes)})
    assert (made.units_in, made.units_out, made.pending) == (2, 1, 0)
    assert made.rows["samples"] == [PAIR] and [each.pair for each in made.rows["verdicts"]] == [PAIR.pair]
    (reject,) = made.rows["rejects"]
    assert (reject.pair, reject.reason) == (WRONG.pair, Reason.PLANTED)
    assert reject.detail.startswith(f"'No' in place of 'Yes' was {was}; a ")
    assert [each.judge for each in made.rows["votes"] if each.pair == WRONG.pair] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"vote": {"planted": 0.1, "show_answer": False}}, "wrong answers"),
        ({"vote": {"planted": 0.1}, "targets": {"samples": 1}}, "which images are tried"),
        ({"review": {"corrections": "judged"}, "targets": {"samples": 1}}, "judged with targets"),
    ],
)
def test_what_cannot_go_together_is_refused(changes, told):
    with pytest.raises(SettingsError, match=told):
        tiny_settings("x", **changes)


def test_a_store_plants_votes_reports_and_releases_as_without(tmp_path, tiny_models: TinyModels):
    plain = tiny_workspace(tiny_settings(tiny_images(tmp_path / "images", 12)))
    pipeline.ingest(plain, "mine")
    pipeline.generate(plain)
    before = judge_report(plain)
    released, samples, funnel = publish(plain).release, *_told(plain)
    workspace = tiny_workspace(plain.settings.model_copy(update={"vote": _planting(plain, 0.5)}), plain.store)
    certain = {each.stage: each.units for each in plan(workspace).stages}["vote"]
    tiny_models.start(None)
    pipeline.generate(workspace)
    errors = [each for each in RunResults(workspace).rejects if each.reason == Reason.PLANTED]
    assert certain.low == certain.high == sum(tiny_models.seen.values()) == tiny_models.distinct("vote")
    assert 3 * len(errors) * 0.9 < certain.low <= 3 * len(errors), "two errors may ask the same of one image"
    samples_now, funnel_now = _told(workspace)
    assert samples_now == samples and funnel_now[-1].units_in == funnel[-1].units_in + len(errors)
    again = publish(workspace).release
    assert (again.samples, again.images, dict(again.rejects)) == (released.samples, released.images, released.rejects)

    found = judge_report(workspace)
    assert (found.pairs, found.agreement) == (before.pairs, before.agreement)
    assert found.planted is not None and found.planted.errors == len(errors)
    assert {judge: seen for judge, (seen, _) in found.planted.by_judge.items()} == dict.fromkeys("abc", len(errors))
    caught = sum("was rejected" in error.detail for error in errors)
    assert found.planted.caught.value == pytest.approx(caught / len(errors), abs=0.001)
    assert any(line.startswith(f"Planted errors: {len(errors)}") for line in text(found))

    tiny_models.start(None)
    pipeline.generate(tiny_workspace(plain.settings, plain.store))
    pipeline.generate(workspace)
    assert not tiny_models.requests, "what was asked is asked no more, set or unset"


def _planting(workspace, share):
    return workspace.settings.vote.model_copy(update={"planted": share})


def _told(workspace):
    results = RunResults(workspace)
    return [each.pair for each in results.samples], results.funnel
