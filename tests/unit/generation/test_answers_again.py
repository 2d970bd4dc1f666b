"""Further answers to a question: what is asked when, what becomes a pair, and none unless it is wanted."""

import pytest
from pydantic import ValidationError
from tiny import tiny_settings

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.forms import QuestionForm
from taskgalaxy_ops.generation.stages import write
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Answer, Reason, Relevant
from taskgalaxy_ops.settings import WriteSettings

ROWS = [Relevant("i1", "a~b", ""), Relevant("i1", "a~c", ""), Relevant("i2", "a~b", "")]


def stage(**chosen):
    """The templates and the work of write under these settings."""
    settings = tiny_settings("x", write=chosen)
    templates = write.templates(load_prompts({}, settings.write.variants, settings.further_prompts), settings)
    return templates, write.work(templates, ROWS, settings)


def asked(work, answers):
    """The units that are needed, with the head of their request."""
    return {unit.key: (template.head, unit.item) for template, units in work.needed(answers) for unit in units}


def first(templates, question="How many?", answer="3", form="plain", reasoning=""):
    """The first answer to each question."""
    reply = Answer({"question": question, "answer": answer, "reasoning": reasoning})
    return {unit.key: reply for unit in write.write_units(templates[form], ROWS)}


def again(work, answers, **said):
    """Answers to all that is needed beside, by number: texts, or a whole answer."""
    given = {}
    for key, (head, _) in asked(work, answers).items():
        told = said[f"n{head['number']}"]
        given[key] = told if isinstance(told, Answer) else Answer(told if isinstance(told, dict) else {"answer": told})
    return {**answers, **given}


def test_a_question_is_answered_again_once_it_is_known_and_more_answers_ask_for_these_alone():
    templates, work = stage(answers=2)
    assert len(asked(work, {})) == 3 and work.most({}) == 6
    answers = first(templates)
    second = asked(work, answers)
    assert [head for head, _ in second.values()] == [{"request": "answer", "variant": "plain", "number": 2}] * 3
    assert {item["question"] for _, item in second.values()} == {"How many?"}
    assert work.most(answers) == 3
    answers = again(work, answers, n2="4")
    assert asked(work, answers) == {} and work.most(answers) == 0
    _, more = stage(answers=3)
    assert {head["number"] for head, _ in asked(more, answers).values()} == {3}
    _, fewer = stage(answers=1)
    assert asked(fewer, answers) == {} and len(fewer.output(answers).rows["pairs"]) == 3


def test_all_is_accounted_for_and_no_answer_is_there_twice():
    templates, work = stage(answers=5)
    answers = first(templates)
    nothing = work.output(answers)
    assert (nothing.units_in, nothing.units_out, nothing.pending) == (15, 3, 12)
    answers = again(work, answers, n2="Three.", n3="4", n4="", n5=Answer(terminal=Reason.REFUSED, detail="no"))
    made = work.output(answers)
    assert (made.units_in, made.units_out, made.pending) == (15, 6, 0)
    assert [pair.number for pair in made.rows["pairs"] if pair.answer == "4"] == [3, 3, 3]
    assert len({pair.pair for pair in made.rows["pairs"]}) == 6
    told = {(row.number, row.reason, row.detail) for row in made.rows["rejects"]}
    assert told == {
        (2, Reason.DUPLICATE_ANSWER, "it says what answer 1 says"),
        (4, Reason.DECLINED, "the teacher found nothing to answer"),
        (5, Reason.REFUSED, "no"),
    }


def test_the_same_answer_for_another_reason_is_another_pair():
    templates, work = stage(variants=["chain_of_thought"], answers=3)
    answers = first(templates, form="chain_of_thought", reasoning="One, two, three.")
    other = {"answer": "3", "reasoning": "Two and one."}
    made = work.output(again(work, answers, n2=other, n3={"answer": "3", "reasoning": "One, two, THREE"}))
    assert sorted(pair.reasoning for pair in made.rows["pairs"]) == ["One, two, three."] * 3 + ["Two and one."] * 3
    assert {row.number for row in made.rows["rejects"]} == {3}


def test_the_checks_of_texts_hold_for_each_answer_and_those_of_repeats_for_the_question():
    templates, work = stage(answers=2, checks={"repeats": {"image": 1}})
    answers = first(templates)
    assert len(asked(work, answers)) == 2, "the question that is repeated within its image is not answered again"
    made = work.output(again(work, answers, n2="4"))
    assert (made.units_in, made.units_out, made.pending) == (5, 4, 0)
    made = work.output(again(work, answers, n2="As an AI language model, I cannot see images."))
    assert {row.reason for row in made.rows["rejects"] if row.number == 2} == {Reason.REFUSED}
    assert made.units_out == 2


def test_forms_that_give_away_their_answers_are_answered_once():
    templates, _ = stage(variants=["multiple_choice", "plain", "yes_no"], answers=2)
    assert [name for name in templates if "answer" in name] == ["plain, answer 2"]
    with pytest.raises(TypeError, match="again"):
        QuestionForm(reply={"claim": str}, again=True)


def test_a_reply_is_read_as_any_other_and_later_without_its_question():
    template = write.answer_template("Answer.", tiny_settings("x").teacher, "plain", 2)
    (unit,) = [template.unit("i1", {"task_type": "a", "question": "Which?"})]
    assert template.parse([unit], '{"answers": [{"index": 1, "answer": "a <s>"}]}')[0][unit.key].value == {
        "answer": "a \u2039s\u203a"
    }
    assert "stands for a text" in template.parse([unit], '{"answers": [{"index": 1, "answer": "..."}]}')[1]
    reader = write.reader(tiny_settings("x").teacher, None, "answer")
    assert reader.read({}, {"answer": "4"}) == Answer({"answer": "4"})
    reasoned = {"answer": "4", "reasoning": "Two and two."}
    assert reader.read({}, reasoned) == Answer(reasoned), "a chain of thought keeps its reasoning in another store"


def test_a_chain_of_thought_without_reasoning_is_a_reject():
    templates, work = stage(variants=["chain_of_thought"], answers=2)
    answers = first(templates, form="chain_of_thought", reasoning="One, two, three.")
    for said, reason in (("4", Reason.EMPTY), ("", Reason.DECLINED)):
        made = work.output(again(work, answers, n2=said))
        assert {row.reason for row in made.rows["rejects"]} == {reason} and not made.pending


def test_unset_it_changes_nothing_and_judges_must_see_the_answers():
    assert not {"answers", "answers_temperature"} & WriteSettings().model_dump().keys()
    templates, work = stage()
    assert list(templates) == ["plain"] and work.most is None
    warm = stage(answers=2)[0]["plain, answer 2"].model.temperature
    assert (warm, templates["plain"].model.temperature) == (1.0, 0.0)
    assert stage(answers=2, answers_temperature=None)[0]["plain, answer 2"].model.temperature == 0.0
    with pytest.raises(ValidationError):
        WriteSettings(answers=0)
    with pytest.raises(SettingsError, match="show_answer"):
        tiny_settings("x", write={"answers": 2}, vote={"show_answer": False})
    with pytest.raises(SettingsError, match="targets"):
        tiny_settings("x", write={"answers": 2}, targets={"samples": 1})
