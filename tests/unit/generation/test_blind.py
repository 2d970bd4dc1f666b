"""The blind probe: who is asked when, what counts as the same answer, and that no judge is paid for nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_settings

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.stages import vote
from taskgalaxy_ops.generation.stages.blind import blind_unit, same_answer, tries_of
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Answer, Pair, Reason
from taskgalaxy_ops.settings import VoteSettings

MODEL = {"name": "guesser", "base_url": "http://tiny/v1", "model": "guesser", "temperature": 1.0}
PAIR = Pair("p" * 64, "i1", "a~b", "plain", "What colour is the car?", "Red.")


def stage(rule="reject", tries=3, right=2):
    chosen = {"model": MODEL, "tries": tries, "right": right, "rule": rule}
    settings = tiny_settings("x", vote={"blind": chosen, "audit_share": 0.0})
    prompts = load_prompts({}, (), settings.further_prompts)
    templates = vote.templates(prompts, settings)
    return templates, vote.work(templates, [PAIR], settings)


def needed(work, answers):
    """The names of the models that are asked next, one a unit."""
    return [template.model.name for template, units in work.needed(answers) for _ in units]


def said(templates, *texts):
    tries = [blind_unit(template, PAIR).key for template in tries_of(templates)]
    return {key: Answer({"answer": text}) for key, text in zip(tries, texts, strict=False)}


def voted(templates, *votes):
    units = [vote.vote_unit(judge, PAIR).key for judge in vote.judges_of(templates)]
    return {key: Answer({"vote": each, "reason": ""}) for key, each in zip(units, votes, strict=False)}


def test_what_is_answered_blind_is_rejected_before_a_judge_is_asked():
    templates, work = stage()
    assert needed(work, {}) == ["guesser"] * 2, "the third is asked where it can decide"
    assert needed(work, said(templates, "red", "blue")) == ["guesser"]
    answers = said(templates, "red", "RED")
    assert needed(work, answers) == []
    made = work.output(answers)
    assert (made.units_in, made.units_out, made.pending, made.rows["verdicts"]) == (1, 0, 0, [])
    (reject,) = made.rows["rejects"]
    assert (reject.reason, reject.pair) == (Reason.ANSWERED_BLIND, PAIR.pair)
    assert reject.detail == "guesser: 2 of 3 tries or more"


def test_a_conversation_is_not_tried():
    templates, _ = stage()
    pair = replace(PAIR, further_turns='[["And the bus?","Blue."]]')
    settings = tiny_settings("x", vote={"blind": {"model": MODEL}, "audit_share": 0.0})
    assert needed(vote.work(templates, [pair], settings), {}) == ["a", "b"]


def test_what_is_not_is_judged_as_ever():
    templates, work = stage()
    answers = said(templates, "blue", "green")
    assert needed(work, answers) == ["a", "b"]
    made = work.output({**answers, **voted(templates, 1, 1)})
    assert made.rows["samples"] == [PAIR] and made.rows["verdicts"][0].blind is False


def test_marked_pairs_are_judged_at_once_and_say_so():
    templates, work = stage("mark")
    assert sorted(needed(work, {})) == ["a", "b", "guesser", "guesser"]
    approved = voted(templates, 1, 1)
    assert work.output(approved).pending == 1
    made = work.output({**approved, **said(templates, "red", "red")})
    assert made.rows["samples"] == [PAIR] and made.rows["verdicts"][0].blind is True


def test_a_try_that_gives_no_answer_is_a_wrong_one():
    templates, work = stage(tries=1, right=1)
    (key,) = [blind_unit(template, PAIR).key for template in tries_of(templates)]
    assert needed(work, {key: Answer(terminal=Reason.REFUSED)}) == ["a", "b"]


def test_the_model_is_told_the_question_alone_and_a_try_is_a_request_of_its_own():
    (template, *others) = tries_of(stage()[0])
    unit = blind_unit(template, PAIR)
    text = template.text([unit])
    assert PAIR.question in text and "Red" not in text and "a~b" not in text
    assert not template.about_images and unit.image == "i1", "a take-down of the image finds what was asked"
    assert len({unit.key, *(blind_unit(other, PAIR).key for other in others)}) == 3
    larger = template.model.model_copy(update={"image_side": 64})
    assert blind_unit(replace(template, model=larger), PAIR).key == unit.key, "no image is rendered"
    assert template.parse([unit], '{"answers": ["Red <s>"]}')[0][unit.key].value == {"answer": "Red <s>"}
    assert template.parse([unit], '{"answers": []}')[1]
    reader = vote.reader(template.model, None, "blind")
    assert reader.read({}, ["red"]) == Answer({"answer": "red"})


@pytest.mark.parametrize(
    ("right", "given_", "same"),
    [
        ("Red.", "the red", True),
        ("3", "three", True),
        ("1,200", "1200.0", True),
        ("B", "B", True),
        ("B", "(b) a cat", True),
        ("B", "B. a cat", True),
        ("A", "a cat", False),
        ("B", "blue", False),
        ("Yes", "Yes, it is.", True),
        ("Yes", "Not yes", False),
        ("No", "None", False),
        ("red", "dark red", False),
    ],
)
def test_answers_that_say_the_same(right, given_, same):
    assert same_answer(right, given_) is same


@given(st.text(max_size=30))
def test_each_answer_says_what_it_says(text):
    assert same_answer(text, text) or not text.strip()


def test_unset_it_changes_nothing_and_what_cannot_be_is_refused():
    assert "blind" not in VoteSettings().model_dump()
    assert all(
        template.head["request"] == "vote" for template in vote.templates({"vote": "V"}, tiny_settings("x")).values()
    )
    with pytest.raises(SettingsError, match="tries"):
        tiny_settings("x", vote={"blind": {"model": MODEL, "tries": 2, "right": 3}})
    with pytest.raises(SettingsError, match="rename"):
        tiny_settings("x", vote={"blind": {"model": {**MODEL, "name": "a"}}})
