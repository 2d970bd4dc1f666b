"""Question forms with a reply of their own: how they are read, what is sent back; simulated models can do each."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw

from taskgalaxy_ops.generation.forms import FORMS, Texts
from taskgalaxy_ops.generation.forms.multiple_choice import CLOSING
from taskgalaxy_ops.generation.stages.vote import vote_template, vote_unit
from taskgalaxy_ops.generation.stages.write import reader, write_template, write_units, written
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Pair, Reason, Relevant
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.simulator import options
from taskgalaxy_ops.simulator.answers import answer, open_image
from taskgalaxy_ops.simulator.config import JudgeErrors, SimulatorConfig
from taskgalaxy_ops.simulator.wire import parse

MODEL = Model(name="t", base_url="http://x/v1", model="sim-teacher")
CHOICE = write_template("Write.", MODEL, "multiple_choice")
(UNIT,) = write_units(CHOICE, [Relevant("i1", "a~b", "seen")])
SHAPE = "shapes & patterns~shape recognition~"
GOOD = {"question": "What colour is the car?", "answer": "Red", "wrong_1": "Blue", "wrong_2": "Green", "wrong_3": ""}


def outcome(**fields: str) -> Any:
    """The pair that a reply becomes, its reject, or what the teacher is told."""
    answers, fault = CHOICE.parse([UNIT], json.dumps({"pairs": [{"index": 1, **GOOD, **fields}]}))
    if UNIT.key not in answers:
        return fault
    found = written("multiple_choice", [UNIT], answers)
    return [*found.pairs, *found.rejects][0]


def test_the_right_option_is_named_by_its_letter():
    pair = outcome()
    lines = pair.question.split("\n")
    assert (lines[0], lines[-1]) == ("What colour is the car?", CLOSING)
    assert sorted(line[3:] for line in lines[1:-1]) == ["Blue", "Green", "Red"]
    assert [line[:3] for line in lines[1:-1]] == ["A. ", "B. ", "C. "]
    assert f"{pair.answer}. Red" in lines
    assert FORMS.get("multiple_choice").turns(Texts(pair.question, pair.answer)) == (pair.question, pair.answer)


def test_the_order_of_the_options_hangs_on_what_they_say_alone():
    assert outcome() == outcome(wrong_1="Green", wrong_2="", wrong_3="Blue")
    texts = FORMS.get("multiple_choice").texts
    places = Counter(
        texts({"question": f"Q{n}?", "answer": "w", "wrong_1": "x", "wrong_2": "y", "wrong_3": "z"}).answer
        for n in range(4000)
    )
    assert sorted(places) == ["A", "B", "C", "D"]
    assert all(900 < number < 1100 for number in places.values()), places


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"wrong_1": "", "wrong_2": ""}, "`wrong_1` must be an answer that is wrong"),
        ({"wrong_2": "red."}, "options must differ"),
        ({"wrong_1": "the RED"}, "options must differ"),
        ({"answer": "3", "wrong_1": "three"}, "options must differ"),
        ({"answer": "1,500", "wrong_1": "1500.0"}, "options must differ"),
        ({"wrong_2": "All of the above"}, "must not speak of the others"),
        ({"wrong_2": "None of these"}, "must not speak of the others"),
        ({"wrong_2": "Blue\nGreen"}, "one line"),
        ({"wrong_2": "x" * 301}, "300 characters"),
        ({"answer": "A. Red", "wrong_1": "B. Blue", "wrong_2": "C) Green"}, "must not begin with letters"),
        ({"question": "Which?\nA. Red\nB. Blue"}, "must not list the options"),
        ({"wrong_1": "..."}, "stands for a text in the example"),
    ],
)
def test_options_that_cannot_be_told_apart_or_put_in_order_are_sent_back(fields, told):
    assert told in outcome(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": "1.5", "wrong_1": "15", "wrong_2": "1.50 m"},
        {"answer": "A. Miller", "wrong_1": "B. Jones", "wrong_2": "Smith"},
        {"answer": "C", "wrong_1": "C++", "wrong_2": "C#"},
        {"answer": "red; blue", "wrong_1": "red; blue; green", "wrong_2": "red"},
        {"answer": "-3", "wrong_1": "3", "wrong_2": "−3 °C"},
        {"answer": "A", "wrong_1": "The", "wrong_2": "an"},
    ],
)
def test_options_that_differ_in_what_they_say_pass(fields):
    assert isinstance(outcome(**fields), Pair)


def test_who_finds_nothing_to_ask_declines():
    assert outcome(question="", answer="").reason == Reason.DECLINED
    assert outcome(question="", answer="", wrong_1="", wrong_2="").reason == Reason.DECLINED
    assert (outcome(answer="").reason, outcome(answer="").detail) == (Reason.EMPTY, "no answer")


def test_its_version_is_in_its_units_keys_alone_and_its_replies_can_be_read_again():
    assert CHOICE.form == {"name": "multiple_choice", "version": "1"}
    assert write_template("Write.", MODEL, "plain").form is None
    assert reader(MODEL, "multiple_choice").schema == CHOICE.schema


def test_a_form_that_came_later_has_its_prompt_where_it_is_written_alone():
    assert "write_multiple_choice" not in load_prompts({}, ["plain"])
    assert "wrong_1" in load_prompts({}, ["plain", "multiple_choice"])["write_multiple_choice"]


# The simulated models


def picture() -> bytes:
    """A blue circle on a light ground."""
    image = Image.new("RGB", (64, 64), (236, 244, 240))
    ImageDraw.Draw(image).ellipse((20, 24, 46, 50), fill=(30, 60, 200))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def ask(template: RequestTemplate, units: list[RequestItem], config: SimulatorConfig) -> list[Any]:
    """The entries that a simulated model answers with, which the template must be able to read."""
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    parts = [{"type": "text", "text": template.text(units)}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": template.model.model, "messages": [{"role": "user", "content": parts}]}
    asked = parse(json.dumps(body).encode())
    entries = answer(config, asked, open_image(asked)).entries
    answers, fault = template.parse(units, json.dumps({template.replies: entries}))
    assert not fault and set(answers) == {unit.key for unit in units}
    return [answers[unit.key] for unit in units]


TYPES = [f"{SHAPE}{leaf}" for leaf in ("shape naming", "shape colour identification", "corner counting")]
NO_ERRORS = JudgeErrors(false_accept=0, false_reject=0)


@pytest.mark.parametrize("wrong_share", [0, 1])
def test_the_simulated_teacher_writes_options_and_judges_find_the_right_one(wrong_share):
    config = SimulatorConfig(wrong_share=wrong_share, judges=dict.fromkeys("abc", NO_ERRORS), guess_accept=0)
    units = write_units(CHOICE, [Relevant("i1", path, "") for path in TYPES])
    answers = dict(zip([unit.key for unit in units], ask(CHOICE, units, config), strict=True))
    pairs = written("multiple_choice", units, answers).pairs
    assert len(pairs) == len(TYPES)
    for name in ("a", "b", "c"):
        judge = vote_template("Vote.", Model(name=name, base_url="http://x/v1", model=f"sim-judge-{name}"), True)
        for pair in pairs:
            ((vote),) = ask(judge, [vote_unit(judge, pair)], config)
            assert vote.value["vote"] == 1 - wrong_share, (pair, vote)
            swapped = next(letter for letter in options.read(pair.question).options if letter != pair.answer)
            other = replace(pair, answer=swapped)
            ((vote),) = ask(judge, [vote_unit(judge, other)], config)
            assert wrong_share or vote.value["vote"] == 0, (other, vote)
